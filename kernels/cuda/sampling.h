#pragma once
// Sampling of the next token from rows of logits, on the device; the twin of kernels/sampling.h.
// Sums are in double, in an order that depends on the number of logits alone. Nothing waits for
// the stream.

#include <cstdint>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

constexpr int32_t kNanToken = -1;

// The fields of kernels::SamplingOptions.
struct SampleSettings {
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
};

// ids[b] becomes the lowest index of the largest logit of row b, or kNanToken where the row holds a
// NaN. logits [B, V] in f32, V >= 1. Throws kBadShape, kUnsupported.
void ArgMax(const ConstRows& logits, int32_t* ids, StreamHandle stream);

// ids[b] becomes what kernels::SampleToken draws from row b with uniform[b] in [0, 1) as its random
// number, or kNanToken; greedy without a temperature (uniform may then be null). Differences of
// rounding move the borders between tokens by 1e-12 of the mass at most.
void Sample(const ConstRows& logits,
            const SampleSettings& settings,
            const double* uniform,
            int32_t* ids,
            StreamHandle stream);

}  // namespace kvc::cuda
