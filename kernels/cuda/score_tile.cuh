#pragma once
// Tiles of scores: 64 queries by 64 tokens of a block, multiplied in float. Thread 16 y + x has the
// queries y, y + 16, ... and the tokens x, x + 16, ...: four of each.

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_codec.cuh"
#include "kernels/cuda/score_passes.h"

namespace kvc::cuda {

constexpr int kTileEdge = 64;
constexpr int kScoreThreads = 256;
constexpr int kScoreWarps = kScoreThreads / 32;
// Of a multiprocessor: without it ptxas aims at more and spills.
constexpr int kScoreBlocksHint = 2;
constexpr float kLog2E = 1.44269504F;

// 64 rows; 4 more columns, so that the same columns of eight rows fall on all 32 banks.
template <int kWidth>
using ScoreTile = float[kTileEdge][kWidth + 4];

__device__ __forceinline__ int TileX() { return static_cast<int>(threadIdx.x) % 16; }
__device__ __forceinline__ int TileY() { return static_cast<int>(threadIdx.x) / 16; }

// Rows first .. first + 63 of cached rows, a warp a row; zeros from row `end` on and behind the
// columns.
template <int kWidth>
__device__ __forceinline__ void LoadTokens(const CachedRows& rows,
                                           int first,
                                           int end,
                                           ScoreTile<kWidth>& tile) {
  for (int r = WarpIndex(); r < kTileEdge; r += kScoreWarps) {
    float x[kWidth / 32] = {};
    if (first + r < end) {
      LoadRow(rows, first + r, rows.width, x);
    }
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      tile[r][LaneIndex() + 32 * c] = x[c];
    }
  }
}

// The same of dense floats [end, width].
template <int kWidth>
__device__ __forceinline__ void LoadFloats(
    const float* data, int width, int first, int end, ScoreTile<kWidth>& tile) {
  for (int r = WarpIndex(); r < kTileEdge; r += kScoreWarps) {
    const float* row = data + static_cast<int64_t>(first + r) * width;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      const int column = LaneIndex() + 32 * c;
      tile[r][column] = first + r < end && column < width ? row[column] : 0.0F;
    }
  }
}

// c = a b^T over the first `width` columns, in their order.
template <int kWidth>
__device__ __forceinline__ void Products(const ScoreTile<kWidth>& a,
                                         const ScoreTile<kWidth>& b,
                                         int width,
                                         float (&c)[4][4]) {
  const int x = TileX();
  const int y = TileY();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      c[i][j] = 0.0F;
    }
  }
  for (int d = 0; d < width; d += 4) {
    float p[4][4];
    float q[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Unpack<float>(Load16(&a[y + 16 * i][d]), p[i]);
      Unpack<float>(Load16(&b[x + 16 * i][d]), q[i]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          c[i][j] += p[i][k] * q[j][k];
        }
      }
    }
  }
}

// Query `row` of query head h of a group.
__device__ __forceinline__ const float* QueryAt(const QueryRows& queries, int row, int h) {
  const int at = queries.first + row;
  return queries.data + (queries.ring > 0 ? at % queries.ring : at) * queries.stride +
         static_cast<int64_t>(h) * queries.head_stride;
}

// (x, y) turned by an angle with this cosine and sine.
__device__ __forceinline__ void Turn(float cos, float sin, float& x, float& y) {
  const float turned = x * cos - y * sin;
  y = y * cos + x * sin;
  x = turned;
}

constexpr int kPartialFloats = 4;  // of a part: maximum, sum, token, unused; then the output

// What the first pass finds of a query.
struct QueryState {
  float maximum;         // of the logits, as exponents of 2
  float inverse;         // 1 / the sum of the weights
  float own;             // o M o^T
  float dominant_error;  // e of the dominant token
  float square;          // (v - o') M (v - o')^T of the dominant token, o' being without it
  float rest;            // attention of all tokens but the one that has most
  int32_t dominant;      // the token with more than half of the attention; -1: none
  int32_t padding;
};
static_assert(sizeof(QueryState) == 8 * sizeof(float));

// The query head of query n of a head: the window's queries come first.
__device__ __forceinline__ int QueryHeadOf(const ScoreHead& head, int n) {
  const int window = head.group * head.window_count;
  return n < window ? n / head.window_count : (n - window) / head.turn.count;
}
// The tokens that query n sees.
__device__ __forceinline__ int VisibleTo(const ScoreHead& head, int n) {
  const int window = head.group * head.window_count;
  return n < window ? head.rows - head.window_count + n % head.window_count + 1 : head.rows;
}

}  // namespace kvc::cuda
