#pragma once
// Scores as integers in the same order, for kernels that go by digits.

#include <cstdint>

#include "kernels/cuda/row_codec.cuh"

namespace kvc::cuda {

// An integer in the order of the scores; 0 belongs to none. Both zeros are one.
__device__ __forceinline__ uint32_t ImageOf(float score) {
  const uint32_t bits = score == 0.0F ? 0U : BitsOf(score);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
// The score that has an image.
__device__ __forceinline__ float ScoreOf(uint32_t image) {
  return FloatOf((image & 0x80000000U) != 0 ? image & 0x7fffffffU : ~image);
}

}  // namespace kvc::cuda
