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

// HasSteps, for the device.
__device__ __forceinline__ bool IsInSteps(RowCode code) { return code >= RowCode::kX8; }
// Bits of kX8, kX4 and kX2.
__device__ __forceinline__ int CodeBits(RowCode code) {
  return 8 >> (static_cast<int>(code) - static_cast<int>(RowCode::kX8));
}
__device__ __forceinline__ bool IsPlain(RowCode code) { return code < RowCode::kInt8; }
// Of plain elements.
__device__ __forceinline__ int ElementBytes(RowCode code) { return code == RowCode::kF32 ? 4 : 2; }

// Where a kSpread row has the bits of a column: a column below the end of the run of 8 bits counts
// as 4 + 2 + 2 of them, and so on.
__device__ __forceinline__ int SpreadBit(const CachedRows& rows, int column) {
  return 4 * min(column, static_cast<int>(rows.ends[0])) +
         2 * min(column, static_cast<int>(rows.ends[1])) +
         2 * min(column, static_cast<int>(rows.ends[2]));
}
// The step of a column with bits, of any code with steps.
__device__ __forceinline__ const float* StepOf(const CachedRows& rows, int column) {
  const int run = (column >= rows.ends[0] ? 1 : 0) + (column >= rows.ends[1] ? 1 : 0);
  return rows.steps + run * rows.steps_apart + column;
}

// A column of a row in codes with steps.
struct CodePlace {
  int bits;           // 0: not stored, zero
  int bit;            // of the row
  const float* step;  // read it of columns with bits alone

  __device__ __forceinline__ CodePlace(const CachedRows& rows, int column)
      : step(StepOf(rows, column)) {
    if (rows.code == RowCode::kSpread) {
      const int run = (column >= rows.ends[0] ? 1 : 0) + (column >= rows.ends[1] ? 1 : 0);
      bits = column < rows.ends[2] ? 8 >> run : 0;
      bit = SpreadBit(rows, column);
    } else {
      bits = CodeBits(rows.code);
      bit = column * bits;
    }
  }
};

// Codes are followed by zeros up to a multiple of four bytes.
__device__ __forceinline__ int RowBytesOf(const CachedRows& rows) {
  if (IsPlain(rows.code)) {
    return rows.width * ElementBytes(rows.code);
  }
  if (rows.code == RowCode::kInt8) {
    return kScaleBytes + (rows.width + 3) / 4 * 4;
  }
  return (CodePlace(rows, rows.width).bit + 31) / 32 * 4;
}
// True where rows of one plane are rows of the other as they are; widths of coded rows are equal.
__device__ __forceinline__ bool AreAlike(const CachedRows& a, const CachedRows& b) {
  if (a.code != b.code || (!IsPlain(a.code) && a.width != b.width)) {
    return false;
  }
  return a.code != RowCode::kSpread ||
         (a.ends[0] == b.ends[0] && a.ends[1] == b.ends[1] && a.ends[2] == b.ends[2]);
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
__device__ __forceinline__ float DecodeCode(const CodePlace& place, const char* row) {
  if (place.bits == 0) {
    return 0.0F;
  }
  const uint32_t word = reinterpret_cast<const uint32_t*>(row)[place.bit / 32];
  const uint32_t code = word >> (place.bit % 32) & ((1U << place.bits) - 1);
  return (static_cast<float>(code) + CodeShift(place.bits)) * *place.step;
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
      return DecodeCode(CodePlace(rows, column), row);
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

// Stores the code of a column of a mixture. Eight columns that have their bits in common are 16, 32
// or 64 of the row: as many lanes as fill 16 store them together.
__device__ __forceinline__ void StoreSpread(
    const CachedRows& rows, char* row, int column, const CodePlace& place, uint32_t code) {
  uint32_t half = code << (place.bit % 16);
#pragma unroll
  for (int lanes = 1; lanes < 8; lanes *= 2) {
    const uint32_t others = ShuffleXor(half, lanes);
    half |= lanes * place.bits < 16 ? others : 0;
  }
  auto* halves = reinterpret_cast<uint16_t*>(row);
  if (column < rows.width && place.bits > 0 && place.bit % 16 == 0) {
    halves[place.bit / 16] = static_cast<uint16_t>(half);
  }
  const int next = place.bit / 16 + 1;
  if (column == min(rows.width, static_cast<int>(rows.ends[2])) - 1 && next % 2 == 1) {
    halves[next] = 0;  // the row's last word is complete
  }
}

// EncodeColumn of codes with steps. Numbers that are not finite are counted in `faults`, if it is
// not null.
__device__ __forceinline__ void EncodeCode(
    const CachedRows& rows, char* row, int column, float x, int32_t* faults) {
  const CodePlace place(rows, column);
  uint32_t code = 0;
  if (column < rows.width) {
    if (place.bits > 0) {
      code = CodeWithStep(place.bits, x, *place.step);
    }
    if (faults != nullptr && MagnitudeOf(x) >= kInfinityBits) {
      AtomicAdd(faults, 1);
    }
  }
  if (rows.code == RowCode::kSpread) {
    StoreSpread(rows, row, column, place, code);
    return;
  }
  uint32_t word = code << (place.bit % 32);
  for (int lanes = 1; lanes * place.bits < 32; lanes *= 2) {
    word |= ShuffleXor(word, lanes);
  }
  if (place.bit % 32 == 0 && column < rows.width) {
    reinterpret_cast<uint32_t*>(row)[place.bit / 32] = word;
  }
}

// A column of a row of `rows` that has, or will have, the scale `scale`, for each lane of a warp:
// `column` is the lane's, x is 0 behind the rows' width. Four lanes store their codes as one word.
__device__ __forceinline__ void EncodeColumn(
    const CachedRows& rows, char* row, float scale, int column, float x, int32_t* faults) {
  const RowCode code = rows.code;
  const int width = rows.width;
  if (IsInSteps(code)) {
    EncodeCode(rows, row, column, x, faults);
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

// Decodes and encodes the first to.width columns of a row; `faults` as EncodeCode has them.
__device__ __forceinline__ void RecodeRow(const CachedRows& from,
                                          int64_t from_row,
                                          const CachedRows& to,
                                          int64_t to_row,
                                          int32_t* faults) {
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
    EncodeColumn(to, target, scale, column, x, faults);
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

// Encodes a row from registers; `faults` as EncodeCode has them.
template <int n>
__device__ __forceinline__ void StoreRow(const CachedRows& to,
                                         int64_t row,
                                         const float (&x)[n],
                                         int32_t* faults) {
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
    EncodeColumn(to, target, scale, column, column < to.width ? x[c] : 0.0F, faults);
  }
}

}  // namespace kvc::cuda
