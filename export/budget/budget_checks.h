#pragma once
// What a method, its scorer, profile and tiers must have before a budget is planned. All throw as
// MakeBudgetPlan says.

#include "export/budget/budget_plan.h"

namespace kvc::budget {

// The method's: groups to move rows between, comparable scores, a profile with the curves.
void CheckMethod(const CacheGeometry& geometry, const PlanRequest& request);

// For a spec with tiers narrower than a row.
void CheckMixed(const CacheSpec& spec, const PlanRequest& request);

}  // namespace kvc::budget
