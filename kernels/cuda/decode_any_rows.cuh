#pragma once
// The reader of any rows (decode_rows.cuh): each segment's keys and values in a format of their
// own, of any width and at any address. They are decoded to floats on the way into shared memory,
// as core/base/row_format.h says, and multiplied as FloatRows are.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/elements.cuh"

namespace kvc::cuda {

// Tiles are a multiple of 8 dimensions wide; those beyond a row's width are zeros.
__device__ __forceinline__ int PaddedWidth(int width) { return (width + 7) / 8 * 8; }

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

// Decodes rows row .. row + 15 into a tile; rows from `end` on become zeros. A lane takes chunks of
// four dimensions, with the loads of several under way.
template <class Decoder>
__device__ __forceinline__ void DecodeTile(uint4* tile, const CachedRows& rows, int row, int end) {
  constexpr int kBatch = 4;
  const Decoder decoder(rows);
  const TileLayout layout = LayoutOf<float>(PaddedWidth(rows.width));
  const int total = kTileRows * layout.chunks;       // a multiple of 32
  const int reciprocal = 65536 / layout.chunks + 1;  // i / chunks, exact for i < 1024
  for (int first = LaneIndex(); first < total; first += 32 * kBatch) {
    float x[kBatch][4];
    int place[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + 32 * b;
      const int r = i * reciprocal >> 16;
      const int chunk = i - r * layout.chunks;
      place[b] = i < total ? layout.At(r, chunk) : -1;
      if (i < total && row + r < end) {
        decoder.Load(row + r, 4 * chunk, x[b]);
      } else {
        x[b][0] = x[b][1] = x[b][2] = x[b][3] = 0.0F;
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (place[b] >= 0) {
        StoreElements<4>(reinterpret_cast<float*>(tile + place[b]), x[b]);
      }
    }
  }
}

template <int kWidth>
struct AnyRows {
  using Floats = FloatRows<kWidth>;
  using Element = float;
  static constexpr int kStages = 1;
  static constexpr int kBlocks = kWidth <= 64 ? 3 : 2;
  static constexpr int kSteps = Floats::kSteps;
  using QueryShared = typename Floats::QueryShared;
  using Queries = typename Floats::Queries;

  __device__ static __forceinline__ void Copy(uint4* tile,
                                              const CachedRows& rows,
                                              int row,
                                              int end) {
    switch (rows.code) {
      case RowCode::kF32:
        return DecodeTile<PlainDecoder<float>>(tile, rows, row, end);
      case RowCode::kF16:
        return DecodeTile<PlainDecoder<__half>>(tile, rows, row, end);
      case RowCode::kBF16:
        return DecodeTile<PlainDecoder<__nv_bfloat16>>(tile, rows, row, end);
      case RowCode::kInt8:
        return DecodeTile<Int8Decoder>(tile, rows, row, end);
    }
  }
  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& shared,
                                                     Queries& queries) {
    Floats::LoadQueries(head, shared, queries);
  }
  __device__ static __forceinline__ void Scores(const uint4* tile,
                                                int width,
                                                const Queries& queries,
                                                float (&s)[4]) {
    Floats::Scores(tile, PaddedWidth(width), queries, s);
  }
  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    int width,
                                                    const float (&p)[4]) {
    Floats::Accumulate(o, tile, PaddedWidth(width), p);
  }
};

}  // namespace kvc::cuda
