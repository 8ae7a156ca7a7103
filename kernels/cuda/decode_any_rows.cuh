#pragma once
// The reader of any rows (decode_rows.cuh): each segment's keys and values in a format of their
// own, of any width and at any address. They are decoded to floats on the way into shared memory,
// as core/base/row_format.h says, and multiplied as FloatRows are.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/row_decoders.cuh"

namespace kvc::cuda {

// Tiles are a multiple of 8 dimensions wide; those beyond a row's width are zeros.
__device__ __forceinline__ int PaddedWidth(int width) { return (width + 7) / 8 * 8; }

// Decodes rows row .. row + 15 into a tile; rows from `end` on become zeros. A lane takes chunks of
// four dimensions, with the loads of several under way.
template <class Decoder>
__device__ __forceinline__ void DecodeTile(uint4* tile, const Decoder& decoder, int row, int end) {
  constexpr int kBatch = 4;
  const TileLayout layout = LayoutOf<float>(PaddedWidth(decoder.width));
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
  static constexpr int kTileChunks = Floats::kTileChunks;
  using QueryShared = typename Floats::QueryShared;
  using Queries = typename Floats::Queries;

  __device__ static __forceinline__ void Copy(uint4* tile,
                                              const CachedRows& rows,
                                              int row,
                                              int end) {
    WithDecoder(rows, [&](const auto& decoder) { DecodeTile(tile, decoder, row, end); });
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
