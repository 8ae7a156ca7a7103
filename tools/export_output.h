#pragma once
// What kvc-export has planned, written, chosen and checked, as JSON (CLI.md) and as text.

#include "core/io/json.h"
#include "export/bundle/export_bundle.h"
#include "pipeline/choose/choose_composition.h"

namespace kvc::tools {

// method, scorer, dtype, budget, reference_length, budget_bytes_per_token_share, cache, heads,
// solver, and verified_max_abs_error, which is null.
[[nodiscard]] Json PlanToJson(const bundle::ExportPlan& plan);
void PrintPlan(const bundle::ExportPlan& plan);

// The plan's keys, verified_max_abs_error where it was verified, and bundle.
[[nodiscard]] Json ExportToJson(const bundle::ExportPlan& plan,
                                const bundle::ExportResult& written);
void PrintWritten(const bundle::ExportResult& written);

// bundle, files, verified_max_abs_error, tolerance
[[nodiscard]] Json CheckToJson(const bundle::CheckResult& checked);
void PrintCheck(const bundle::CheckResult& checked);

// ComparisonToJson's keys, screened and chosen.
[[nodiscard]] Json ChoiceToJson(const choose::Choice& choice);
void PrintChoice(const choose::Choice& choice);

}  // namespace kvc::tools
