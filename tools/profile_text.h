#pragma once
// Output of kvc-profile as text on stdout.

#include "pipeline/profile_stage.h"

namespace kvc::tools {

void PrintProfilePlan(const profile::ProfilePlan& plan);
// Prints what every scorer loses at some budgets, and where head importance comes from.
void PrintProfile(const pipeline::ProfileResult& result, const profile::ProfileOptions& options);

}  // namespace kvc::tools
