#pragma once
// A policy in one text, as kvc-eval compare and kvc-export --method auto take it.

#include <string>

#include "export/budget/budget_plan.h"

namespace kvc::budget {

// METHOD[/SCORER[/LOSS]][@[prompt:]TIERS]: `lukv/snapkv/output-error`, `uniform@0,1/8,1/4,1`,
// `uniform/snapkv@prompt:0,1/4,1` (bases found in each prompt). Sets method, scorer, loss, tiers
// and basis of `request`; what the text leaves out stays. Throws kUsage.
void ParsePolicy(const std::string& text, PlanRequest& request);

}  // namespace kvc::budget
