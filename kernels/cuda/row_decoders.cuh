#pragma once
// Decoders of cached rows to floats, four elements at a time, as attention puts them into shared
// memory (core/base/row_format.h): one for each kind of row, chosen once for many rows. Elements
// beyond a row's width are zeros.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

// Rows of plain elements. Four elements come by one load where every row begins at a multiple of
// their bytes.
template <class T>
struct PlainDecoder {
  const char* data;
  int64_t stride;
  int width;
  bool together;

  __device__ __forceinline__ explicit PlainDecoder(const CachedRows& rows)
      : data(static_cast<const char*>(rows.data)), stride(rows.stride), width(rows.width) {
    const auto address = reinterpret_cast<uintptr_t>(data) | static_cast<uintptr_t>(stride);
    together = address % (4 * sizeof(T)) == 0;
  }
  // Elements d .. d + 3 of a row.
  __device__ __forceinline__ void Load(int row, int d, float (&x)[4]) const {
    const T* from = reinterpret_cast<const T*>(data + row * stride) + d;
    if (together && d + 4 <= width) {
      T element[4];
      if constexpr (sizeof(T) == 4) {
        const uint4 bits = Load16(from);
        memcpy(element, &bits, sizeof(bits));
      } else {
        const uint2 bits = *reinterpret_cast<const uint2*>(from);
        memcpy(element, &bits, sizeof(bits));
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = ToFloat(element[j]);
      }
      return;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      x[j] = d + j < width ? ToFloat(from[j]) : 0.0F;
    }
  }
};

// A float scale, then codes. Rows begin at multiples of 4 bytes and codes fill whole words.
struct Int8Decoder {
  const char* data;
  int64_t stride;
  int width;

  __device__ __forceinline__ explicit Int8Decoder(const CachedRows& rows)
      : data(static_cast<const char*>(rows.data)), stride(rows.stride), width(rows.width) {}
  __device__ __forceinline__ void Load(int row, int d, float (&x)[4]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(data + row * stride);
    const float scale = *reinterpret_cast<const float*>(words);
    const uint32_t codes = d < width ? words[1 + d / 4] : 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const auto code = static_cast<int8_t>(codes >> (8 * j) & 0xffU);
      x[j] = d + j < width ? scale * static_cast<float>(code) : 0.0F;
    }
  }
};

// Calls body(decoder) with the decoder of the rows' code, which has no steps (CheckPlainRows).
template <class Body>
__device__ __forceinline__ void WithDecoder(const CachedRows& rows, const Body& body) {
  switch (rows.code) {
    case RowCode::kF32:
      return body(PlainDecoder<float>(rows));
    case RowCode::kF16:
      return body(PlainDecoder<__half>(rows));
    case RowCode::kBF16:
      return body(PlainDecoder<__nv_bfloat16>(rows));
    default:
      return body(Int8Decoder(rows));
  }
}

}  // namespace kvc::cuda
