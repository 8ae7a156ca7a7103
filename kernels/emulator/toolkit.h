#pragma once
// The few names of CUDA's toolkit that device sources use, for a host compiler on a machine that
// has no toolkit: qualifiers, vector types, and the two 16-bit floats with their conversions.
//
// Names, sizes and alignments are CUDA's (programming guide, "Built-in Vector Types"; CUDA math
// API, "Half Precision" and "Bfloat16 Precision" conversions). Only
// kernels/cuda/device_emulated.cuh and the emulator include this.

#include <cstdint>
#include <cstring>

#include "core/base/dtype.h"

// The names are CUDA's. NOLINTBEGIN
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};

inline float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
// Rounds to nearest, ties to even; a NaN stays one.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return {0x7fff};
  }
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}
inline float __half2float(__half x) { return kvc::F16ToFloat(x.bits); }
inline __half __float2half_rn(float x) { return {kvc::FloatToF16(x)}; }
inline __half2 __floats2half2_rn(float low, float high) {
  return {__float2half_rn(low), __float2half_rn(high)};
}
// NOLINTEND
