#pragma once
// Head budgets from utility curves (LU-KV, bibliography key [LUKV]): a group's loss as a function
// of the bytes that its rows take, and the greedy solver over all groups.

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/cache/cache_spec.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"

namespace kvc::budget {

// Rows of a group that hold no chosen token: sinks, window and margin.
[[nodiscard]] int64_t ProtectedRows(const CacheSpec& spec);

// What a budgeted group of a layer allocates with `rows` rows for a sequence of `length` tokens, as
// PredictBytes counts it.
[[nodiscard]] int64_t GroupBytes(
    const CacheSpec& spec, int64_t layer, const CacheGroup& group, int64_t rows, int64_t length);

// Which loss of a profile decides (docs/formats/profile.md).
enum class CurveLoss {
  kImportance,   // lost oracle importance: relative to what a layer's heads have [LUKV]
  kOutputError,  // change of the attention's output: one unit for the whole model
};
[[nodiscard]] std::string_view CurveLossName(CurveLoss loss);      // "importance", "output-error"
[[nodiscard]] CurveLoss CurveLossFromName(std::string_view name);  // throws kUsage

// The curves that a method is solved on: of `loss` for lukv, of the output with tiers inside for
// lukv-mixed.
[[nodiscard]] const std::map<ScorerSpec, std::vector<float>>& CurvesFor(const ProfileData& profile,
                                                                        Method method,
                                                                        CurveLoss loss);

struct CurveFit {
  std::vector<std::vector<double>> rows;  // [L][n]
  SolverRecord solver;                    // of the curves' grid points
};

// Spreads `bytes`, query rings included, over the groups of `spec` (whose budget is not read) for a
// sequence of `length` tokens. Each group's curve is the sum of its heads' curves (CurvesFor)
// for spec.scorer, which the profile must have; for lukv-mixed with kImportance each head's is
// scaled to begin at the importance that it holds. What the curves' grid leaves over buys single
// rows where they gain most, so the solver's objective is an upper bound of the plan's. Throws
// kInfeasible when the smallest rows do not fit.
[[nodiscard]] CurveFit FitUtilityCurves(const CacheSpec& spec,
                                        const ProfileData& profile,
                                        CurveLoss loss,
                                        int64_t length,
                                        int64_t bytes);

}  // namespace kvc::budget
