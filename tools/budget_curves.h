#pragma once
// Head budgets from utility curves (LU-KV, bibliography key [LUKV]): a group's loss as a function
// of the bytes that its rows take, and the greedy solver over all groups.

#include <cstdint>
#include <vector>

#include "core/cache_spec.h"
#include "core/manifest.h"
#include "core/profile_file.h"

namespace kvc::tools {

// Rows of a group that hold no chosen token: sinks, window and margin.
[[nodiscard]] int64_t ProtectedRows(const CacheSpec& spec);

// What a budgeted group with `rows` rows allocates for a sequence of `length` tokens, as
// PredictBytes counts it.
[[nodiscard]] int64_t GroupBytes(const CacheSpec& spec,
                                 const CacheGroup& group,
                                 int64_t rows,
                                 int64_t length);

struct CurveFit {
  std::vector<std::vector<double>> rows;  // [L][n]
  SolverRecord solver;                    // of the curves' grid points
};

// Spreads `bytes`, query rings included, over the groups of `spec` (whose budget is not read) for a
// sequence of `length` tokens. Each group's curve is the sum of its heads' curves for spec.scorer.
// What the curves' grid leaves over buys single rows where they gain most, so the solver's
// objective is an upper bound of the plan's. Throws kInfeasible when the smallest rows do not fit.
[[nodiscard]] CurveFit FitUtilityCurves(const CacheSpec& spec,
                                        const ProfileData& profile,
                                        int64_t length,
                                        int64_t bytes);

}  // namespace kvc::tools
