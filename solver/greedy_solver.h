#pragma once
// The greedy solver of the multiple-choice knapsack, which spreads a budget over curves: minimise
// sum_i loss_i(p_i) subject to sum_i cost_i(p_i) <= budget, with one point p_i of each curve.
//
// The increments of all hulls are taken by slope (loss saved per cost) until the next one does not
// fit; that is the optimum of the LP relaxation but for one split increment [Sinha1979]. The rest
// of the budget is filled with increments that still fit. The bound is the LP optimum, so the gap
// objective - bound is certified, and at most the loss of the split increment.

#include <cstdint>
#include <span>
#include <vector>

#include "solver/convex_hull.h"

namespace kvc::solver {

using Curve = std::vector<CurvePoint>;  // costs ascend strictly; the first point is the cheapest

struct Allocation {
  std::vector<int64_t> choice;  // index of the point taken on each curve
  double objective = 0.0;       // sum of losses at the choices
  double bound = 0.0;           // LP optimum: no allocation within the budget has less loss
  double cost = 0.0;            // sum of costs at the choices
};

// Allocates the budget. Ties go to the lower curve index. Throws kInfeasible, naming the smallest
// possible budget, when the first points of the curves alone exceed `budget`; kNumeric for a budget
// that is NaN, and what LowerHull throws, naming the curve.
[[nodiscard]] Allocation SolveGreedy(std::span<const Curve> curves, double budget);

}  // namespace kvc::solver
