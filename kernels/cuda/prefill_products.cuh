#pragma once
// The two products of prefill attention, by the type in which they are multiplied. A warp has 16
// rows of queries; lane 4 g + t holds of rows g and g + 8
//
//   s[n][2 h + j]   score, then weight, of row g + 8 h and key 8 n + 2 t + j of the tile
//   o[m][..][..]    outputs: RowOf and ColumnOf say which
//
// and a type of products has
//
//   kKeys                              rows of a tile of keys or values
//   kRebuilds                          keys are made of latents: Rebuild(shared, head, row,
//   visible)
//                                      makes those of a tile, between two barriers of the block
//   Keys, Values, Shared               in shared memory: tiles, and what else the block needs
//   LoadQueries(shared, rows, head)    may be read after a barrier of the block
//   Scores(shared, keys, head, s)      s = Q K^T
//   Accumulate(shared, values, width, s, o)   o += P V

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/row_tile.cuh"

namespace kvc::cuda {

constexpr int kPrefillWarps = 4;
constexpr int kWarpQueries = 16;

// Rows g and g + 8 of the lane's warp: where their queries are, null where there is no such row.
struct QueryRows {
  const float* row[2];
};

// 16-bit floats on tensor cores: queries and weights are the tall operand, rounded to T.
template <class T, int kKeyWidth, int kValueWidth>
struct MatrixProducts {
  static constexpr int kKeys = 64;
  static constexpr bool kRebuilds = false;
  static constexpr int kValueSteps = kValueWidth / 16;
  using Keys = RowTile<T, kKeys, kKeyWidth>;
  using Values = RowTile<T, kKeys, kValueWidth>;
  struct Shared {};

  uint32_t queries[kKeyWidth / 16][4];

  __device__ static __forceinline__ constexpr int RowOf(int /*half*/, int i) { return i / 2; }
  __device__ static __forceinline__ int ColumnOf(int m, int half, int i) {
    return 16 * m + 8 * half + 2 * (LaneIndex() % 4) + i % 2;
  }

  __device__ __forceinline__ void LoadQueries(Shared& /*shared*/,
                                              const QueryRows& rows,
                                              const PrefillHead& head) {
    const int width = head.keys.width;
    const int t = LaneIndex() % 4;
#pragma unroll
    for (int k = 0; k < kKeyWidth / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* row = rows.row[i % 2];
        const int d = 16 * k + i / 2 * 8 + 2 * t;
        const float low = row != nullptr && d < width ? row[d] : 0.0F;
        const float high = row != nullptr && d + 1 < width ? row[d + 1] : 0.0F;
        queries[k][i] = Pack<T>(low, high);
      }
    }
  }

  __device__ __forceinline__ void Scores(const Shared& /*shared*/,
                                         const Keys& keys,
                                         const PrefillHead& head,
                                         float (&s)[kKeys / 8][4]) const {
    const int width = head.keys.width;
    const int lane = LaneIndex();
#pragma unroll
    for (int k = 0; k < kKeyWidth / 16; ++k) {
      if (16 * k < width) {
#pragma unroll
        for (int n = 0; n < kKeys / 16; ++n) {
          uint32_t b[4];
          LoadMatrices(b, keys.At(16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
          const uint32_t low[2] = {b[0], b[1]};
          const uint32_t high[2] = {b[2], b[3]};
          MultiplyAdd<T>(s[2 * n], queries[k], low);
          MultiplyAdd<T>(s[2 * n + 1], queries[k], high);
        }
      }
    }
  }

  __device__ __forceinline__ void Accumulate(Shared& /*shared*/,
                                             const Values& values,
                                             int width,
                                             const float (&s)[kKeys / 8][4],
                                             float (&o)[kValueSteps][2][4]) const {
    const int lane = LaneIndex();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const uint32_t a[4] = {Pack<T>(s[2 * k][0], s[2 * k][1]), Pack<T>(s[2 * k][2], s[2 * k][3]),
                             Pack<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                             Pack<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int m = 0; m < kValueSteps; ++m) {
        if (16 * m < width) {
          uint32_t b[4];
          LoadMatricesTransposed(b, values.At(16 * k + lane % 16, 2 * m + lane / 16));
          const uint32_t low[2] = {b[0], b[1]};
          const uint32_t high[2] = {b[2], b[3]};
          MultiplyAdd<T>(o[m][0], a, low);
          MultiplyAdd<T>(o[m][1], a, high);
        }
      }
    }
  }
};

// Floats: queries and weights lie in shared memory, where a lane reads four of a row at a time.
template <int kKeyWidth, int kValueWidth>
struct FloatProducts {
  static constexpr int kKeys = kKeyWidth <= 128 ? 32 : 16;
  static constexpr bool kRebuilds = false;
  static constexpr int kValueSteps = kValueWidth / 16;
  using Keys = RowTile<float, kKeys, kKeyWidth>;
  using Values = RowTile<float, kKeys, kValueWidth>;
  // 4 more: the same column of eight rows falls on different banks.
  struct Shared {
    float queries[kPrefillWarps][kWarpQueries][kKeyWidth + 4];
    float weights[kPrefillWarps][kWarpQueries][kKeys + 4];
  };

  __device__ static __forceinline__ constexpr int RowOf(int half, int /*i*/) { return half; }
  __device__ static __forceinline__ int ColumnOf(int m, int /*half*/, int i) {
    return 16 * m + 4 * (LaneIndex() % 4) + i;
  }

  __device__ __forceinline__ void LoadQueries(Shared& shared,
                                              const QueryRows& rows,
                                              const PrefillHead& head) {
    const int width = head.keys.width;
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* row = rows.row[h];
      float* to = shared.queries[WarpIndex()][g + 8 * h];
      for (int d = t; d < kKeyWidth; d += 4) {
        to[d] = row != nullptr && d < width ? row[d] : 0.0F;
      }
    }
  }

  __device__ __forceinline__ void Scores(const Shared& shared,
                                         const Keys& keys,
                                         const PrefillHead& head,
                                         float (&s)[kKeys / 8][4]) const {
    const int width = head.keys.width;
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
    const int warp = WarpIndex();
    for (int chunk = 0; 4 * chunk < width; ++chunk) {
      float q[2][4];
      Unpack<float>(Load16(&shared.queries[warp][g][4 * chunk]), q[0]);
      Unpack<float>(Load16(&shared.queries[warp][g + 8][4 * chunk]), q[1]);
#pragma unroll
      for (int key = 0; key < kKeys / 4; ++key) {
        const int n = key / 2;
        const int j = key % 2;
        float k[4];
        Unpack<float>(Load16(keys.At(8 * n + 2 * t + j, chunk)), k);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[n][j] += q[0][i] * k[i];
          s[n][2 + j] += q[1][i] * k[i];
        }
      }
    }
  }

  __device__ __forceinline__ void Accumulate(Shared& shared,
                                             const Values& values,
                                             int width,
                                             const float (&s)[kKeys / 8][4],
                                             float (&o)[kValueSteps][2][4]) const {
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
    auto& weights = shared.weights[WarpIndex()];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights[g + i / 2 * 8][8 * n + 2 * t + i % 2] = s[n][i];
      }
    }
    SyncWarp();  // the weights of both rows are there
    for (int key = 0; key < kKeys; key += 4) {
      float p[2][4];
      Unpack<float>(Load16(&weights[g][key]), p[0]);
      Unpack<float>(Load16(&weights[g + 8][key]), p[1]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int m = 0; m < kValueSteps; ++m) {
          if (16 * m < width) {
            float v[4];
            Unpack<float>(Load16(values.At(key + j, 4 * m + t)), v);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              o[m][0][i] += p[0][j] * v[i];
              o[m][1][i] += p[1][j] * v[i];
            }
          }
        }
      }
    }
  }
};

}  // namespace kvc::cuda
