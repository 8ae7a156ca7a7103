#pragma once
// Thin keys of one layer: objective and layout applied to its statistics and weights.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"
#include "core/sizes.h"
#include "factorize/key_basis.h"
#include "factorize/key_statistics.h"

namespace kvc::factorize {

// What the truncation minimises (DESIGN section 4). kAuto: the best measured one of the layout.
enum class Objective { kAuto, kWeight, kInput, kInputQuery, kInputAttentionQuery, kLogit };
[[nodiscard]] std::string_view ObjectiveName(Objective objective);
// Throws kUsage listing the names; kUnsupported for `attention`, which post-rope keys will bring.
[[nodiscard]] Objective ObjectiveFromName(std::string_view name);
// The objective that kAuto stands for. Throws kUsage when the layout cannot have `objective`.
[[nodiscard]] Objective ResolveObjective(Objective objective, KeyLayout layout);
[[nodiscard]] constexpr bool NeedsCalibration(Objective objective) {
  return objective != Objective::kWeight;
}

// Weights of one layer as the checkpoint stores them, [out, in] row-major.
struct LayerKeyWeights {
  std::vector<float> q;       // [H*D, E]
  std::vector<float> q_bias;  // [H*D] or empty
  std::vector<float> k;       // [G*D, E]
  std::vector<float> k_norm;  // [D] or empty: scales keys after the rebuild
};

struct LayerFactors {
  std::vector<int64_t> ranks;                // [n]
  std::vector<float> k;                      // [sum_n R_n, E] thin key projection
  std::vector<float> k_rebuild;              // kLatent: [G*D, max R]
  std::vector<float> q, q_bias;              // kAbsorb: [sum_h R_h, E], [sum_h R_h]; kLatent
                                             // after tuning: q [H*D, E]
  std::vector<double> logit_errors;          // [G] relative logit error of each kv head
  std::vector<std::vector<double>> spectra;  // [n] of [m]
};

struct FactorRequest {
  KeyLayout layout = KeyLayout::kLatent;  // kLatent or kAbsorb
  int64_t num_groups = 1;                 // n
  Objective objective = Objective::kInputQuery;
  RankRequest rank;
  std::vector<int64_t> group_ranks;  // [n] instead of `rank`, or empty

  // Rank of group n, whose full width is `width`.
  [[nodiscard]] int64_t RankOf(int64_t group, int64_t width) const;
};

// Rank of a group whose full width is `width`: the share rounded to a multiple of 8 (of 1 below 32
// dimensions), at least that multiple; a number of dimensions is taken as it is. Throws kUsage
// above the width.
[[nodiscard]] int64_t RankFor(const RankRequest& rank, int64_t width);

// `statistics` may be null with kWeight. Errors are then relative to the weights' own energy.
[[nodiscard]] LayerFactors FactorLayer(const ModelConfig& config,
                                       const FactorRequest& request,
                                       const LayerKeyWeights& weights,
                                       const KeyStatistics* statistics,
                                       const Svd& svd);

}  // namespace kvc::factorize
