#pragma once
// How a latent becomes a key of one kv head, in the form in which tensor cores take it:
//
//   key = rotate(norm(B latent + bias), position)
//
// Kernels make keys 16 at a time (latent_keys.cuh) and never keep them. Attention does not depend
// on the order of a key's dimensions, so the packed form has them in `places`, 16 of a step: first
// steps of 8 pairs that turn together, places p and p + 8 being dimensions j and j + half; then the
// dimensions that do not turn. Places without a dimension give zeros.
//
// Matrix elements are sums of two bf16 numbers, latents and keys likewise: a product is within
// 2^-15 of what it is in float. Thread-safe: nothing changes what has been packed.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/elementwise.h"

namespace kvc::cuda {

struct LatentKeys {
  // On the device, 16-byte aligned: what PackLatentKeys returns. Null: rows are keys as they are.
  const uint32_t* packed = nullptr;
  RotationTable rotation;
  int32_t rank = 0;    // R, columns of B; latents that are narrower count as followed by zeros
  int32_t width = 0;   // D
  int32_t places = 0;  // LatentPlaces(D, rotation.half)
  // RMS norm over the dimensions, then its weights; 0: none. Above 0 where there is one.
  float norm_epsilon = 0.0F;
};

// The factors of a kv head on the host.
struct LatentFactors {
  const float* matrix = nullptr;       // B [D, R], rows matrix_stride floats apart
  const float* bias = nullptr;         // [D] or null
  const float* norm_weight = nullptr;  // [D] or null
  int64_t matrix_stride = 0;
  int64_t rank = 0;
  int64_t width = 0;
  int64_t half = 0;  // pairs that turn
};

// The places of a key: a multiple of 16, and less than width + 32.
[[nodiscard]] constexpr int64_t LatentPlaces(int64_t width, int64_t half) {
  return (half + 7) / 8 * 16 + (width - 2 * half + 15) / 16 * 16;
}
// What PackLatentKeys returns, in words.
[[nodiscard]] constexpr int64_t PackedLatentWords(int64_t rank, int64_t width, int64_t half) {
  return LatentPlaces(width, half) * ((rank + 15) / 16 * 16 + 3);
}

// For each step of 16 places and each 16 columns the matrix' fragments, a lane's four words of high
// halves after another's, then those of low halves; then of all places the bias, the norm's
// weights, and the dimensions (int32, -1: none). Throws kBadShape where sizes do not fit together.
[[nodiscard]] std::vector<uint32_t> PackLatentKeys(const LatentFactors& factors);

}  // namespace kvc::cuda
