#pragma once
// Results of the export as JSON (CLI.md): what was planned, written and checked.

#include "core/io/json_fwd.h"
#include "export/bundle/export_bundle.h"

namespace kvc::bundle {

// Returns method, scorer, dtype, budget, reference_length, budget_bytes_per_token_share, cache,
// heads, solver, and verified_max_abs_error, which is null.
[[nodiscard]] Json ToJson(const ExportPlan& plan);
// Returns the plan's keys, verified_max_abs_error if it was verified, and bundle.
[[nodiscard]] Json ToJson(const ExportPlan& plan, const ExportResult& written);
// Returns bundle, files, verified_max_abs_error, tolerance.
[[nodiscard]] Json ToJson(const CheckResult& checked);

}  // namespace kvc::bundle
