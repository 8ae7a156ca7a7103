#pragma once
// What kvc-profile prints: its JSON keys (CLI.md), and the same for people.

#include "core/io/json_fwd.h"
#include "pipeline/profile_stage.h"

namespace kvc::tools {

// The keys of --dry-run.
[[nodiscard]] Json ToJson(const profile::ProfilePlan& plan);
// The keys of a finished run: the plan's, and what every scorer loses at some budgets.
[[nodiscard]] Json ToJson(const pipeline::ProfileResult& result,
                          const profile::ProfileOptions& options);

// Either of them as text on stdout.
void PrintProfile(const Json& result);

}  // namespace kvc::tools
