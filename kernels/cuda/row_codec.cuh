#pragma once
// Encoding and decoding of cached rows on the device: the twin of core/base/row_format.cc, to the
// bit. A row is a warp's: lane l has the columns l, l + 32, l + 64, ...

#include <cstdint>
#include <cstring>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

constexpr int kScaleBytes = 4;
constexpr uint32_t kInfinityBits = 0x7f800000U;
constexpr uint32_t kNaNBits = 0x7fc00000U;

__device__ __forceinline__ uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}
__device__ __forceinline__ float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

__device__ __forceinline__ char* RowAt(const CachedRows& rows, int64_t row) {
  return static_cast<char*>(rows.data) + row * rows.stride;
}

// Bits of a code with steps (StepBits, for the device); 0 for other elements.
__device__ __forceinline__ int CodeBits(RowCode code) {
  return code < RowCode::kX8 ? 0 : 8 >> (static_cast<int>(code) - static_cast<int>(RowCode::kX8));
}
__device__ __forceinline__ bool IsPlain(RowCode code) { return code < RowCode::kInt8; }
// Of plain elements.
__device__ __forceinline__ int ElementBytes(RowCode code) { return code == RowCode::kF32 ? 4 : 2; }
// Codes are followed by zeros up to a multiple of four bytes.
__device__ __forceinline__ int RowBytesOf(RowCode code, int width) {
  if (IsPlain(code)) {
    return width * ElementBytes(code);
  }
  return code == RowCode::kInt8 ? kScaleBytes + (width + 3) / 4 * 4
                                : (width * CodeBits(code) + 31) / 32 * 4;
}

// The scale of a row that is read; not looked at where the code has none.
__device__ __forceinline__ float ScaleOf(RowCode code, const char* row) {
  return code == RowCode::kInt8 ? *reinterpret_cast<const float*>(row) : 0.0F;
}

// NaNs keep their payload, which conversion instructions do not promise.
__device__ __forceinline__ float WidenHalf(uint16_t bits) {
  if ((bits & 0x7c00U) == 0x7c00U) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
    return FloatOf(sign | kInfinityBits | static_cast<uint32_t>(bits & 0x3ffU) << 13);
  }
  __half half;
  memcpy(&half, &bits, sizeof(half));
  return ToFloat(half);
}
__device__ __forceinline__ uint16_t NarrowHalf(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffU) > kInfinityBits) {
    return static_cast<uint16_t>((bits >> 16 & 0x8000U) | 0x7e00U | (bits >> 13 & 0x3ffU));
  }
  const __half half = FromFloat<__half>(x);
  uint16_t narrow;
  memcpy(&narrow, &half, sizeof(narrow));
  return narrow;
}
__device__ __forceinline__ uint16_t NarrowBrain(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffU) > kInfinityBits) {
    return static_cast<uint16_t>(bits >> 16 | 0x40U);
  }
  return static_cast<uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

// What is added to a code of `bits` bits before its step multiplies it.
__device__ __forceinline__ float CodeShift(int bits) {
  return 0.5F - static_cast<float>(1 << (bits - 1));
}
__device__ __forceinline__ float DecodeCode(int bits, const char* row, float step, int column) {
  const int bit = column * bits;
  const uint32_t word = reinterpret_cast<const uint32_t*>(row)[bit / 32];
  const uint32_t code = word >> (bit % 32) & ((1U << bits) - 1);
  return (static_cast<float>(code) + CodeShift(bits)) * step;
}
// floor(x / step), clamped, from 0 on. What is not finite becomes some code: there is none for it.
__device__ __forceinline__ uint32_t CodeWithStep(int bits, float x, float step) {
  const int zero = 1 << (bits - 1);
  const float code =
      fminf(fmaxf(floorf(x / step), static_cast<float>(-zero)), static_cast<float>(zero - 1));
  return static_cast<uint32_t>(static_cast<int>(code) + zero);
}

// One column of a row of `rows`; `scale` is its ScaleOf.
__device__ __forceinline__ float DecodeElement(const CachedRows& rows,
                                               const char* row,
                                               float scale,
                                               int column) {
  switch (rows.code) {
    case RowCode::kF32:
      return reinterpret_cast<const float*>(row)[column];
    case RowCode::kF16:
      return WidenHalf(reinterpret_cast<const uint16_t*>(row)[column]);
    case RowCode::kBF16:
      return FloatOf(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[column]) << 16);
    case RowCode::kInt8:
      return scale * static_cast<float>(reinterpret_cast<const int8_t*>(row + kScaleBytes)[column]);
    default:
      return DecodeCode(CodeBits(rows.code), row, rows.steps[column], column);
  }
  return 0.0F;
}

// The largest magnitude of a row among the lanes, as bits: in their order NaN is above infinity.
__device__ __forceinline__ uint32_t WarpLargest(uint32_t magnitude) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    magnitude = max(magnitude, ShuffleXor(magnitude, mask));
  }
  return magnitude;
}
__device__ __forceinline__ uint32_t MagnitudeOf(float x) { return BitsOf(x) & 0x7fffffffU; }

// s = max |x| / 127; NaN for a row with a NaN or an infinity.
__device__ __forceinline__ float ScaleFor(uint32_t largest) {
  // The largest float whose product with the largest code is finite.
  constexpr float kLargestScale = 0x1.020406p+121F;
  return largest >= kInfinityBits ? FloatOf(kNaNBits)
                                  : fminf(FloatOf(largest) / 127.0F, kLargestScale);
}
// x / s to the nearest integer, ties to even; 0 where s is 0 or NaN.
__device__ __forceinline__ uint8_t CodeOf(float x, float scale) {
  if (!(scale > 0.0F)) {
    return 0;
  }
  // Adding 1.5 x 2^23 leaves the integer in the low bits.
  const float code = fminf(fmaxf(x / scale, -127.0F), 127.0F) + 12582912.0F;
  return static_cast<uint8_t>(BitsOf(code) & 0xffU);
}

// EncodeColumn of codes with steps: as many lanes as fill a word store it together.
__device__ __forceinline__ void EncodeCode(const CachedRows& rows, char* row, int column, float x) {
  const int bits = CodeBits(rows.code);
  const int bit = column * bits;
  uint32_t word = 0;
  if (column < rows.width) {
    word = CodeWithStep(bits, x, rows.steps[column]) << (bit % 32);
  }
  for (int lanes = 1; lanes * bits < 32; lanes *= 2) {
    word |= ShuffleXor(word, lanes);
  }
  if (bit % 32 == 0 && column < rows.width) {
    reinterpret_cast<uint32_t*>(row)[bit / 32] = word;
  }
}

// A column of a row of `rows` that has, or will have, the scale `scale`, for each lane of a warp:
// `column` is the lane's, x is 0 behind the rows' width. Four lanes store their codes as one word.
__device__ __forceinline__ void EncodeColumn(
    const CachedRows& rows, char* row, float scale, int column, float x) {
  const RowCode code = rows.code;
  const int width = rows.width;
  if (CodeBits(code) > 0) {
    EncodeCode(rows, row, column, x);
    return;
  }
  if (code == RowCode::kInt8) {
    uint32_t word = static_cast<uint32_t>(CodeOf(x, scale)) << (8 * (column % 4));
    word |= ShuffleXor(word, 1);
    word |= ShuffleXor(word, 2);
    if (column % 4 == 0 && column < width) {
      *reinterpret_cast<uint32_t*>(row + kScaleBytes + column) = word;
    }
    return;
  }
  if (column >= width) {
    return;
  }
  if (code == RowCode::kF32) {
    reinterpret_cast<float*>(row)[column] = x;
  } else {
    reinterpret_cast<uint16_t*>(row)[column] =
        code == RowCode::kF16 ? NarrowHalf(x) : NarrowBrain(x);
  }
}

// Decodes and encodes the first to.width columns of a row.
__device__ __forceinline__ void RecodeRow(const CachedRows& from,
                                          int64_t from_row,
                                          const CachedRows& to,
                                          int64_t to_row) {
  const char* source = RowAt(from, from_row);
  char* target = RowAt(to, to_row);
  const int lane = LaneIndex();
  const float from_scale = ScaleOf(from.code, source);
  float scale = 0.0F;
  if (to.code == RowCode::kInt8) {
    uint32_t largest = 0;
    for (int column = lane; column < to.width; column += 32) {
      largest = max(largest, MagnitudeOf(DecodeElement(from, source, from_scale, column)));
    }
    scale = ScaleFor(WarpLargest(largest));
    if (lane == 0) {
      *reinterpret_cast<float*>(target) = scale;
    }
  }
#pragma unroll 4
  for (int first = 0; first < to.width; first += 32) {
    const int column = first + lane;
    const float x = column < to.width ? DecodeElement(from, source, from_scale, column) : 0.0F;
    EncodeColumn(to, target, scale, column, x);
  }
}

// The first `width` columns of a row in registers, zeros behind them.
template <int n>
__device__ __forceinline__ void LoadRow(const CachedRows& from,
                                        int64_t row,
                                        int width,
                                        float (&x)[n]) {
  const char* source = RowAt(from, row);
  const float scale = ScaleOf(from.code, source);
#pragma unroll
  for (int c = 0; c < n; ++c) {
    const int column = LaneIndex() + 32 * c;
    x[c] = column < width ? DecodeElement(from, source, scale, column) : 0.0F;
  }
}

// Encodes a row from registers.
template <int n>
__device__ __forceinline__ void StoreRow(const CachedRows& to, int64_t row, const float (&x)[n]) {
  char* target = RowAt(to, row);
  float scale = 0.0F;
  if (to.code == RowCode::kInt8) {
    uint32_t largest = 0;
#pragma unroll
    for (int c = 0; c < n; ++c) {
      largest = max(largest, LaneIndex() + 32 * c < to.width ? MagnitudeOf(x[c]) : 0U);
    }
    scale = ScaleFor(WarpLargest(largest));
    if (LaneIndex() == 0) {
      *reinterpret_cast<float*>(target) = scale;
    }
  }
#pragma unroll
  for (int c = 0; c < n; ++c) {
    const int column = LaneIndex() + 32 * c;
    EncodeColumn(to, target, scale, column, column < to.width ? x[c] : 0.0F);
  }
}

}  // namespace kvc::cuda
