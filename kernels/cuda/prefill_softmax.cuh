#pragma once
// The online softmax of prefill attention: which rows a query sees, and what a warp's 16 rows of
// queries have summed so far.

#include <cmath>

#include "kernels/cuda/prefill_products.cuh"

namespace kvc::cuda {

// Rows that the query at `position` sees.
__device__ __forceinline__ RowRange VisibleFrom(const PrefillChunk& chunk, int position) {
  return {chunk.window > 0 ? max(0, position - chunk.window + 1) : 0, position + 1};
}

// Rows that at least one of `count` rows of queries, from `query` on, sees; none where there is no
// such query.
__device__ __forceinline__ RowRange VisibleFromAny(const PrefillChunk& chunk,
                                                   int query,
                                                   int count) {
  const int token = query / chunk.group;
  const int last = min((query + count - 1) / chunk.group, chunk.tokens - 1);
  return token < chunk.tokens ? RowRange{VisibleFrom(chunk, chunk.first + token).begin,
                                         VisibleFrom(chunk, chunk.first + last).end}
                              : RowRange{0, 0};
}

// The softmax so far of a lane's two rows, in the fragments of prefill_products.cuh.
template <class Products>
struct RowState {
  float o[Products::kValueSteps][2][4];
  float maximum[2];  // of scores before their scale
  float sum[2];      // of this lane's weights
  RowRange visible[2];

  __device__ __forceinline__ void Clear(const RowRange (&rows)[2]) {
    visible[0] = rows[0];
    visible[1] = rows[1];
#pragma unroll
    for (int m = 0; m < Products::kValueSteps; ++m) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        o[m][i / 4][i % 4] = 0.0F;
      }
    }
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0.0F;
  }

  // Scores of the tile that begins at row `tile` become weights, 2^(scale (s - maximum)); what was
  // summed before is rescaled to the new maximum. A row that has seen nothing yet stays at zeros.
  __device__ __forceinline__ void Weigh(float (&s)[Products::kKeys / 8][4], int tile, float scale) {
    constexpr int kKeys = Products::kKeys;
    if (tile + kKeys > visible[0].end || tile < visible[1].begin) {
      Mask(s, tile);
    }
    float correction[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float peak = maximum[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
        peak = fmaxf(peak, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      }
      peak = WarpMax<3>(peak);
      const float base = peak == -INFINITY ? 0.0F : peak * scale;
      correction[h] = Exp2(maximum[h] * scale - base);
      maximum[h] = peak;
      sum[h] *= correction[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int j = 2 * h; j < 2 * h + 2; ++j) {
          s[n][j] = Exp2(s[n][j] * scale - base);
          sum[h] += s[n][j];
        }
      }
    }
#pragma unroll
    for (int m = 0; m < Products::kValueSteps; ++m) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        o[m][i / 4][i % 4] *= correction[Products::RowOf(i / 4, i % 4)];
      }
    }
  }

 private:
  __device__ __forceinline__ void Mask(float (&s)[Products::kKeys / 8][4], int tile) const {
    const int t = LaneIndex() % 4;
#pragma unroll
    for (int n = 0; n < Products::kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = tile + 8 * n + 2 * t + i % 2;
        if (row < visible[i / 2].begin || row >= visible[i / 2].end) {
          s[n][i] = -INFINITY;
        }
      }
    }
  }
};

}  // namespace kvc::cuda
