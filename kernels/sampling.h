#pragma once
// Sampling of the next token from a row of logits.

#include <cstdint>
#include <span>

#include "core/base/rng.h"

namespace kvc::kernels {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;        // of the most probable tokens, the fewest that have this mass
};

// Draws a token id. Greedy sampling takes the lowest id among the largest logits. Throws kBadShape
// for no logits, kNumeric when the logits hold a NaN.
[[nodiscard]] int32_t SampleToken(std::span<const float> logits,
                                  const SamplingOptions& options,
                                  Rng& rng);

}  // namespace kvc::kernels
