#pragma once
// Readers of cached rows: how decode attention brings a tile of 16 rows into shared memory and what
// it multiplies there. A row format is a type with
//
//   kKeyChunks, kValueChunks  16 bytes each: of a tile of keys, of values
//   kStages                   tiles of a warp under way; 1: a tile is loaded when it is needed
//   kBlocks                   of a multiprocessor: bounds the registers
//   Queries, QueryShared      the group's queries, in registers and in shared memory
//   CopyKeys(tile, rows, row, end), CopyValues     begin to bring rows row .. row + 15; rows from
//                                                  `end` on become zeros
//   LoadQueries(head, shared, queries)             may meet the block
//   Enter(head, segment, queries, o), Leave(segment, o)   around a warp's tiles of a segment
//   Scores(keys, queries, s)                       s += K Q^T
//   Accumulate(o, tile, rows, p)                   o += V^T P
//
// Fragments, lane 4 g + t: s and p hold (row g, query 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t +
// 1); o[m] holds dimensions 16 m + g and 16 m + g + 8 in place of the rows.

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

constexpr int kTileRows = 16;  // of a warp

// A tile of keys: rows row .. row + 15 of a segment, those from `end` on being zeros.
struct KeyTile {
  const uint4* chunks;
  const DecodeSegment& segment;
  int row;
  int end;
};

// Of readers to whom all segments are alike.
struct SegmentsAlike {
  template <class Queries, int kSteps>
  __device__ static __forceinline__ void Enter(const DecodeHead& /*head*/,
                                               const DecodeSegment& /*segment*/,
                                               Queries& /*queries*/,
                                               float (&/*o*/)[kSteps][4]) {}
  template <int kSteps>
  __device__ static __forceinline__ void Leave(const DecodeSegment& /*segment*/,
                                               float (&/*o*/)[kSteps][4]) {}
};

// The group's queries as the second operand: Q^T, dimensions 16 k + 8 half + 2t, + 1 of query g.
template <class Pair, int kSteps>
__device__ __forceinline__ void LoadQueryPairs(const DecodeHead& head, Pair (&pairs)[kSteps][2]) {
  const int g = LaneIndex() / 4;
  const int t = LaneIndex() % 4;
  const float* row = head.queries + static_cast<int64_t>(g) * head.query_stride;
  const int width = g < head.group ? head.query_width : 0;
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int d = 16 * k + 8 * half + 2 * t;
      pairs[k][half] = Pair(d < width ? row[d] : 0.0F, d + 1 < width ? row[d + 1] : 0.0F);
    }
  }
}

// Two floats rounded to T.
template <class T>
struct RoundedPair {
  uint32_t bits;

  RoundedPair() = default;
  __device__ __forceinline__ RoundedPair(float x, float y) : bits(Pack<T>(x, y)) {}
};

// Where chunk c (16 bytes) of row r stands in a tile: chunks are swapped within a row so that the
// same chunk of eight consecutive rows falls on all 32 banks.
struct TileLayout {
  int chunks;  // of a row
  int shift;   // rows that already differ in their banks: log2
  int mask;

  __device__ __forceinline__ explicit TileLayout(int row_chunks) : chunks(row_chunks) {
    const int power = min(chunks & -chunks, 8);  // the largest power of two that divides chunks
    shift = power >= 8 ? 0 : power >= 4 ? 1 : power >= 2 ? 2 : 3;
    mask = power - 1;
  }
  __device__ __forceinline__ int At(int row, int chunk) const {
    return row * chunks + (chunk ^ ((row >> shift) & mask));
  }
};

template <class Element>
__device__ __forceinline__ TileLayout LayoutOf(int width) {
  return TileLayout(width / kPerChunk<Element>);
}

// Starts the copies of rows row .. row + 15 of dense rows; rows from `end` on become zeros.
template <class Element>
__device__ __forceinline__ void CopyTile(uint4* tile, const CachedRows& rows, int row, int end) {
  const TileLayout layout = LayoutOf<Element>(rows.width);
  const uint4* from =
      static_cast<const uint4*>(rows.data) + static_cast<int64_t>(row) * layout.chunks;
  const int reciprocal = 65536 / layout.chunks + 1;  // i / chunks, exact for i < 1024
  for (int i = LaneIndex(); i < kTileRows * layout.chunks; i += 32) {
    const int r = i * reciprocal >> 16;
    const bool valid = row + r < end;
    CopyAsync16(tile + layout.At(r, i - r * layout.chunks), valid ? from + i : from, valid);
  }
}

// 16-bit floats on tensor cores. Keys and values are the tall operand (16 rows, 16 dimensions), the
// queries the 8 columns.
template <class T, int kWidth>
struct MatrixRows : SegmentsAlike {
  static constexpr int kStages = kWidth <= 128 ? 3 : 2;
  static constexpr int kBlocks = kWidth <= 128 ? 2 : 1;
  static constexpr int kSteps = kWidth / 16;
  static constexpr int kKeyChunks = kTileRows * kWidth / kPerChunk<T>;
  static constexpr int kValueChunks = kKeyChunks;
  struct QueryShared {};
  struct Queries {
    RoundedPair<T> pair[kSteps][2];
  };

  __device__ static __forceinline__ void CopyKeys(uint4* tile,
                                                  const CachedRows& rows,
                                                  int row,
                                                  int end) {
    CopyTile<T>(tile, rows, row, end);
  }
  __device__ static __forceinline__ void CopyValues(uint4* tile,
                                                    const CachedRows& rows,
                                                    int row,
                                                    int end) {
    CopyTile<T>(tile, rows, row, end);
  }
  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& /*shared*/,
                                                     Queries& queries) {
    LoadQueryPairs(head, queries.pair);
  }

  __device__ static __forceinline__ void Scores(const KeyTile& keys,
                                                const Queries& queries,
                                                float (&s)[4]) {
    const int width = keys.segment.keys.width;
    const TileLayout layout = LayoutOf<T>(width);
    const int lane = LaneIndex();
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (16 * k < width) {
        const int chunk = min(2 * k + lane / 16, layout.chunks - 1);
        uint32_t a[4];
        LoadMatrices(a, keys.chunks + layout.At(lane % 16, chunk));
        if (16 * k + 8 >= width) {
          a[2] = a[3] = 0;  // the last 8 dimensions are not there
        }
        MultiplyAdd<T>(s, a, {queries.pair[k][0].bits, queries.pair[k][1].bits});
      }
    }
  }

  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    const CachedRows& values,
                                                    const float (&p)[4]) {
    const int width = values.width;
    const TileLayout layout = LayoutOf<T>(width);
    const int lane = LaneIndex();
    const uint32_t b[2] = {TransposeMatrix(Pack<T>(p[0], p[1])),
                           TransposeMatrix(Pack<T>(p[2], p[3]))};
#pragma unroll
    for (int m = 0; m < kSteps; ++m) {
      if (16 * m < width) {
        const int chunk = min(2 * m + lane / 8 % 2, layout.chunks - 1);
        uint32_t a[4];
        LoadMatricesTransposed(a, tile + layout.At(lane % 8 + lane / 16 * 8, chunk));
        if (16 * m + 8 >= width) {
          a[1] = a[3] = 0;
        }
        MultiplyAdd<T>(o[m], a, b);
      }
    }
  }
};

// Floats, multiplied in float: a lane takes two rows and two queries at a time.
template <int kWidth>
struct FloatRows : SegmentsAlike {
  static constexpr int kStages = kWidth <= 64 ? 3 : 2;
  static constexpr int kBlocks = 2;
  static constexpr int kSteps = kWidth / 16;
  static constexpr int kKeyChunks = kTileRows * kWidth / kPerChunk<float>;
  static constexpr int kValueChunks = kKeyChunks;
  __device__ static __forceinline__ void CopyKeys(uint4* tile,
                                                  const CachedRows& rows,
                                                  int row,
                                                  int end) {
    CopyTile<float>(tile, rows, row, end);
  }
  __device__ static __forceinline__ void CopyValues(uint4* tile,
                                                    const CachedRows& rows,
                                                    int row,
                                                    int end) {
    CopyTile<float>(tile, rows, row, end);
  }
  struct QueryShared {
    float row[kDecodeQueries][kWidth + 4];  // 4 more: rows 2t of four lanes fall on different banks
  };
  struct Queries {
    const QueryShared* shared;
  };

  // The block's barrier also keeps the head before's readers apart: they met since.
  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& shared,
                                                     Queries& queries) {
    for (int i = static_cast<int>(threadIdx.x); i < kDecodeQueries * kWidth;
         i += static_cast<int>(blockDim.x)) {
      const int g = i / kWidth;
      const int d = i % kWidth;
      const bool valid = g < head.group && d < head.query_width;
      shared.row[g][d] =
          valid ? head.queries[static_cast<int64_t>(g) * head.query_stride + d] : 0.0F;
    }
    SyncBlock();
    queries.shared = &shared;
  }

  __device__ static __forceinline__ void Scores(const KeyTile& keys,
                                                const Queries& queries,
                                                float (&s)[4]) {
    const int width = keys.segment.keys.width;
    const TileLayout layout = LayoutOf<float>(width);
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
    for (int chunk = 0; chunk < layout.chunks; ++chunk) {
      float k[2][4];
      float q[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Unpack<float>(Load16(keys.chunks + layout.At(g + 8 * half, chunk)), k[half]);
        Unpack<float>(Load16(&queries.shared->row[2 * t + half][4 * chunk]), q[half]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[0] += k[0][i] * q[0][i];
        s[1] += k[0][i] * q[1][i];
        s[2] += k[1][i] * q[0][i];
        s[3] += k[1][i] * q[1][i];
      }
    }
  }

  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    const CachedRows& values,
                                                    const float (&p)[4]) {
    const int width = values.width;
    const TileLayout layout = LayoutOf<float>(width);
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      const float p0 = Shuffle(p[row / 8 * 2], row % 8 * 4 + t);
      const float p1 = Shuffle(p[row / 8 * 2 + 1], row % 8 * 4 + t);
#pragma unroll
      for (int m = 0; m < kSteps; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int d = 16 * m + 8 * half + g;
          if (16 * m + 8 * half < width) {
            const auto* chunk = reinterpret_cast<const float*>(tile + layout.At(row, d / 4));
            const float v = chunk[d % 4];
            o[m][2 * half] += v * p0;
            o[m][2 * half + 1] += v * p1;
          }
        }
      }
    }
  }
};

}  // namespace kvc::cuda
