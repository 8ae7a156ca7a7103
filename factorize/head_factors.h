#pragma once
// Thin keys of the layouts that give every kv head a basis of its own: absorb, post-rope and
// rope-pairs. Part of layer_factors.h; nothing else includes it.

#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Moments from which one head's basis is computed and by which it is judged.
struct HeadMoments {
  linalg::Matrix keys;     // [D, D] C_K
  linalg::Matrix queries;  // [D, D] C_Q
};
// Returns the moments of head g under the objective kLogit, kAttention or kOutput. With kWeight
// they are those of rotated keys and queries of white inputs: a diagonal that is equal within a
// pair.
[[nodiscard]] HeadMoments MomentsOf(const ModelConfig& config,
                                    Objective objective,
                                    const LayerKeyWeights& weights,
                                    const KeyStatistics* statistics,
                                    int64_t head);

[[nodiscard]] LayerFactors FactorPostRope(const ModelConfig& config,
                                          const FactorRequest& request,
                                          const KeyStatistics& statistics,
                                          const linalg::Svd& svd);
[[nodiscard]] LayerFactors FactorRopePairs(const ModelConfig& config,
                                           const FactorRequest& request,
                                           const LayerKeyWeights& weights,
                                           const KeyStatistics* statistics);

}  // namespace kvc::factorize
