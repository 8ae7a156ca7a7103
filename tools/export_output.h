#pragma once
// Output of kvc-export as JSON (CLI.md) and as text: what it planned, wrote, chose and checked.

#include "core/io/json.h"
#include "export/bundle/export_bundle.h"
#include "pipeline/choose/choose_composition.h"

namespace kvc::tools {

// Returns method, scorer, dtype, budget, reference_length, budget_bytes_per_token_share, cache,
// heads, solver, and verified_max_abs_error, which is null.
[[nodiscard]] Json PlanToJson(const bundle::ExportPlan& plan);
void PrintPlan(const bundle::ExportPlan& plan);

// Returns the plan's keys, verified_max_abs_error if it was verified, and bundle.
[[nodiscard]] Json ExportToJson(const bundle::ExportPlan& plan,
                                const bundle::ExportResult& written);
void PrintWritten(const bundle::ExportResult& written);

// Returns bundle, files, verified_max_abs_error, tolerance.
[[nodiscard]] Json CheckToJson(const bundle::CheckResult& checked);
void PrintCheck(const bundle::CheckResult& checked);

void PrintChoice(const choose::Choice& choice);

}  // namespace kvc::tools
