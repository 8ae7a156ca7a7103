#pragma once
// Reductions over the queries of a tile (score_tile.cuh), in a fixed order.

#include "kernels/cuda/score_tile.cuh"

namespace kvc::cuda {

struct ReduceShared {
  float warps[kScoreWarps][kTileEdge];
};

// The larger of both; a NaN once there stays.
__device__ __forceinline__ float LargerOrNaN(float a, float b) { return b > a || b != b ? b : a; }

struct SumOf {
  __device__ static __forceinline__ float Of(float a, float b) { return a + b; }
};
struct MostOf {
  __device__ static __forceinline__ float Of(float a, float b) { return LargerOrNaN(a, b); }
};

// What the threads have of their tokens x, x + 16, ... over all queries: thread t < 64 gets that of
// token t. Meets the block.
template <class Op>
__device__ __forceinline__ float OverQueries(const float (&x)[4], ReduceShared& shared) {
  SyncBlock();  // what was reduced before has been read
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float both = Op::Of(x[j], ShuffleXor(x[j], 16));
    if (LaneIndex() < 16) {
      shared.warps[WarpIndex()][TileX() + 16 * j] = both;
    }
  }
  SyncBlock();  // all warps' are there
  const int token = static_cast<int>(threadIdx.x) % kTileEdge;
  float total = shared.warps[0][token];
#pragma unroll
  for (int w = 1; w < kScoreWarps; ++w) {
    total = Op::Of(total, shared.warps[w][token]);
  }
  return total;
}
__device__ __forceinline__ float SumOverQueries(const float (&x)[4], ReduceShared& shared) {
  return OverQueries<SumOf>(x, shared);
}
__device__ __forceinline__ float MostOverQueries(const float (&x)[4], ReduceShared& shared) {
  return OverQueries<MostOf>(x, shared);
}

// form += (rows e, e + 1, ... of M times y) times the same columns of x: with c = M_e . y_j of 64
// rows of M, the parts of y_j M x_j^T.
template <int kWidth>
__device__ __forceinline__ void AddForms(const float (&c)[4][4],
                                         const ScoreTile<kWidth>& x,
                                         int e,
                                         float (&form)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int column = e + TileY() + 16 * i;
    if (column < kWidth) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        form[j] += c[i][j] * x[TileX() + 16 * j][column];
      }
    }
  }
}

// The states of 64 queries from n on.
__device__ __forceinline__ void LoadStates(const ScoreCall& call,
                                           const ScoreHead& head,
                                           int n,
                                           QueryState (&states)[kTileEdge]) {
  const int row = static_cast<int>(threadIdx.x);
  if (row < kTileEdge && n + row < head.queries) {
    states[row] = reinterpret_cast<const QueryState*>(call.scratch + head.scratch.states)[n + row];
  }
}

}  // namespace kvc::cuda
