#pragma once
// Two floats as pairs of bf16 numbers: what they round to, and the rest. The sum is within 2^-17 of
// the floats; products on tensor cores take both parts.

#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

struct SplitPair {
  uint32_t high;
  uint32_t low;

  SplitPair() = default;
  __device__ __forceinline__ SplitPair(float x, float y) {
    const float x_high = ToFloat(FromFloat<__nv_bfloat16>(x));
    const float y_high = ToFloat(FromFloat<__nv_bfloat16>(y));
    high = Pack<__nv_bfloat16>(x_high, y_high);
    low = Pack<__nv_bfloat16>(x - x_high, y - y_high);
  }
};

// Operands of MultiplyAdd, each the sum of two: a [16, 16] and b [16, 8].
struct SplitTall {
  uint32_t high[4];
  uint32_t low[4];

  __device__ __forceinline__ void Set(int i, const SplitPair& pair) {
    high[i] = pair.high;
    low[i] = pair.low;
  }
};
struct SplitWide {
  uint32_t high[2];
  uint32_t low[2];
};

// d += a b, but for the product of both low parts. `exact`: a has no low parts.
__device__ __forceinline__ void MultiplyAddSplit(float (&d)[4],
                                                 const SplitTall& a,
                                                 const SplitWide& b,
                                                 bool exact = false) {
  MultiplyAdd<__nv_bfloat16>(d, a.high, b.high);
  MultiplyAdd<__nv_bfloat16>(d, a.high, b.low);
  if (!exact) {
    MultiplyAdd<__nv_bfloat16>(d, a.low, b.high);
  }
}

}  // namespace kvc::cuda
