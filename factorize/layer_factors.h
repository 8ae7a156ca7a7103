#pragma once
// Thin keys of one layer: an objective and a layout applied to its statistics and weights.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/sizes.h"
#include "core/checkpoint/model_config.h"
#include "factorize/key_basis.h"
#include "factorize/key_statistics.h"

namespace kvc::factorize {

// Quantity that the truncation minimises (DESIGN section 4). kAuto is the best measured one of the
// layout.
enum class Objective {
  kAuto,
  kWeight,
  kInput,
  kInputQuery,
  kInputAttentionQuery,
  kLogit,
  kAttention,
  kOutput,
};
[[nodiscard]] std::string_view ObjectiveName(Objective objective);
// Parses a name. Throws kUsage listing the names.
[[nodiscard]] Objective ObjectiveFromName(std::string_view name);
[[nodiscard]] bool CanHaveObjective(KeyLayout layout, Objective objective);
// Returns the key dimensions of a group: its heads x D.
[[nodiscard]] constexpr int64_t GroupWidth(const ModelConfig& config, int64_t num_groups) {
  return config.num_kv_heads / num_groups * config.head_width;
}
// Returns the objective that kAuto stands for, with groups of `group_width` key dimensions (heads x
// D). Throws kUsage when the layout cannot have `objective`, naming those that it can.
[[nodiscard]] Objective ResolveObjective(Objective objective,
                                         KeyLayout layout,
                                         int64_t group_width);
// The widest latent that kAuto fits head by head (kOutput). For each head, statistics grow with the
// square of the width and time with its cube: 1,024 dimensions take seconds and 64 MB per layer,
// the 4,096 of 32 heads would take half an hour and 4 GB (estimated).
inline constexpr int64_t kWidestOutputGroup = 2048;
[[nodiscard]] constexpr bool NeedsCalibration(Objective objective) {
  return objective != Objective::kWeight;
}

// Returns the weights of errors in cached keys under an objective.
[[nodiscard]] constexpr ErrorWeights WeightsOf(Objective objective) {
  if (objective == Objective::kOutput) return ErrorWeights::kOutput;
  const bool by_attention =
      objective == Objective::kInputAttentionQuery || objective == Objective::kAttention;
  return by_attention ? ErrorWeights::kAttention : ErrorWeights::kNone;
}

// Weights of one layer as the checkpoint stores them, [out, in] row-major. kAbsorb and kRopePairs
// need those of the queries and all biases.
struct LayerKeyWeights {
  std::vector<float> q;       // [H*D, E]
  std::vector<float> q_bias;  // [H*D] or empty
  std::vector<float> k;       // [G*D, E]
  std::vector<float> k_bias;  // [G*D] or empty
  std::vector<float> k_norm;  // [D] or empty: scales keys after the rebuild
};

struct LayerFactors {
  std::vector<int64_t> ranks;                // [n]
  std::vector<float> k;                      // [sum_n R_n, E] thin key projection; not kPostRope
  std::vector<float> k_rebuild;              // kLatent: [G*D, max R]
  std::vector<float> q, q_bias;              // kAbsorb, kRopePairs: [sum_h R_h, E], [sum_h R_h];
                                             // kLatent after tuning: q [H*D, E]
  std::vector<float> k_bias;                 // kRopePairs: [sum_g R_g] or empty
  std::vector<float> k_reduce, q_reduce;     // kPostRope: A^T, B^T [sum_g R_g, D]
  std::vector<float> k_reduce_bias;          // kPostRope: -mu A [sum_g R_g]
  std::vector<std::vector<int64_t>> pairs;   // kRopePairs: [G] of [R_g/2]
  std::vector<double> logit_errors;          // [G] relative logit error of each kv head
  std::vector<std::vector<double>> spectra;  // [n] of [m]
};

struct FactorRequest {
  KeyLayout layout = KeyLayout::kLatent;  // any but kFull
  int64_t num_groups = 1;                 // n
  Objective objective = Objective::kInputQuery;
  RankRequest rank;
  std::vector<int64_t> group_ranks;  // [n] instead of `rank`, or empty
  std::vector<std::vector<int64_t>>
      layer_ranks;  // [L][n] of which each layer gets its own, or empty

  // Returns the rank of group n, whose full width is `width`.
  [[nodiscard]] int64_t RankOf(int64_t group, int64_t width) const;
};

// Returns the rank of a group whose full width is `width`. A share is rounded to a multiple of 8
// (of 1 below 32 dimensions, of 2 with kRopePairs) and is at least that multiple; a number of
// dimensions is taken as it is. Throws kUsage above the width, and for an odd number of dimensions
// with kRopePairs.
[[nodiscard]] int64_t RankFor(const RankRequest& rank,
                              int64_t width,
                              KeyLayout layout = KeyLayout::kLatent);

// Computes one layer's factors. `statistics` may be null with kWeight; errors are then relative to
// the weights' own energy. With kAttention errors weigh keys by the attention that they receive.
[[nodiscard]] LayerFactors FactorLayer(const ModelConfig& config,
                                       const FactorRequest& request,
                                       const LayerKeyWeights& weights,
                                       const KeyStatistics* statistics,
                                       const linalg::Svd& svd);

}  // namespace kvc::factorize
