#pragma once
// Output of kvc-profile: its JSON keys (CLI.md), and the same as text.

#include "core/io/json_fwd.h"
#include "pipeline/profile_stage.h"

namespace kvc::tools {

// Returns the keys of --dry-run.
[[nodiscard]] Json ToJson(const profile::ProfilePlan& plan);
// Returns the keys of a finished run: the plan's, and what every scorer loses at some budgets.
[[nodiscard]] Json ToJson(const pipeline::ProfileResult& result,
                          const profile::ProfileOptions& options);

// Prints either of them as text on stdout.
void PrintProfile(const Json& result);

}  // namespace kvc::tools
