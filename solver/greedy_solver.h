#pragma once
// Spreads a budget over curves: minimise sum_i loss_i(p_i) subject to sum_i cost_i(p_i) <= budget,
// one point p_i of each curve (a multiple-choice knapsack).
//
// Hull increments of all curves are taken by slope (loss saved per cost) until the next one does
// not fit; that is the optimum of the LP relaxation but for one split increment [Sinha1979]. What
// is left is then filled with increments that still fit. The bound is the LP optimum, so objective
// - bound is certified and at most the split increment's loss.

#include <cstdint>
#include <span>
#include <vector>

#include "solver/convex_hull.h"

namespace kvc::solver {

using Curve = std::vector<CurvePoint>;  // costs strictly ascending; the first point is the minimum

struct Allocation {
  std::vector<int64_t> choice;  // index of the point taken on each curve
  double objective = 0.0;       // sum of losses at the choices
  double bound = 0.0;           // LP optimum: no allocation within the budget has less loss
  double cost = 0.0;            // sum of costs at the choices
};

// Throws kInfeasible when the curves' first points alone exceed `budget`, naming the smallest
// possible budget. Deterministic: ties by curve index.
[[nodiscard]] Allocation SolveGreedy(std::span<const Curve> curves, double budget);

}  // namespace kvc::solver
