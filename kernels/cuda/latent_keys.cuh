#pragma once
// Keys from latents, 16 of a warp at a time, on tensor cores (latent_keys.h). Latents come straight
// from global memory, whole sectors of a row at a time; the matrix is read by all warps of all
// blocks alike, in the order of its fragments.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/latent_keys.h"
#include "kernels/cuda/row_decoders.cuh"
#include "kernels/cuda/row_tile.cuh"
#include "kernels/cuda/split_pair.cuh"

namespace kvc::cuda {

// Latents row .. row + 15 of a kv head; rows that are not visible are not read and count as zeros.
struct LatentTile {
  CachedRows rows;
  const int32_t* positions;  // null: a row's number is its position
  int row;
  RowRange visible;

  __device__ __forceinline__ bool Sees(int at) const {
    return at >= visible.begin && at < visible.end;
  }
};

constexpr int kLatentSteps = 4;         // of 16 places, under way at once
constexpr int kLatentDepth = 2;         // of 16 columns, loaded at once
constexpr int kStepWords = 2 * 4 * 32;  // of the packed matrix: a step's fragments of 16 columns

__device__ __forceinline__ const float* BiasOf(const LatentKeys& how) {
  return reinterpret_cast<const float*>(how.packed) +
         how.places / 16 * ((how.rank + 15) / 16) * static_cast<int64_t>(kStepWords);
}
__device__ __forceinline__ const float* NormWeightsOf(const LatentKeys& how) {
  return BiasOf(how) + how.places;
}
__device__ __forceinline__ const int32_t* DimensionsOf(const LatentKeys& how) {
  return reinterpret_cast<const int32_t*>(BiasOf(how) + 2 * how.places);
}

// Columns from `column` on as operands, 16 an operand: lane 4 g + t holds columns 4 t .. 4 t + 3 of
// rows g and g + 8, as the packed matrix has them.
template <class Decoder>
__device__ __forceinline__ void LoadLatents(const Decoder& decoder,
                                            const LatentTile& tile,
                                            int column,
                                            SplitTall (&a)[kLatentDepth]) {
  const int row = tile.row + LaneIndex() / 4;
  const int first = column + LaneIndex() % 4 * 4;
  float x[kLatentDepth][2][4];
#pragma unroll
  for (int k = 0; k < kLatentDepth; ++k) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      x[k][r][0] = x[k][r][1] = x[k][r][2] = x[k][r][3] = 0.0F;
      if (tile.Sees(row + 8 * r) && first + 16 * k < decoder.width) {
        decoder.Load(row + 8 * r, first + 16 * k, x[k][r]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kLatentDepth; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[k].Set(i, SplitPair(x[k][i % 2][i / 2 * 2], x[k][i % 2][i / 2 * 2 + 1]));
    }
  }
}

// What keys of a lane's rows, g and g + 8, need besides the products.
class KeyFinish {
 public:
  __device__ __forceinline__ KeyFinish(const LatentKeys& how, const LatentTile& tile) : how_(how) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = tile.row + LaneIndex() / 4 + 8 * r;
      const bool exists = tile.Sees(row);
      const int64_t position = !exists ? 0 : tile.positions != nullptr ? tile.positions[row] : row;
      cos_[r] = how.rotation.cos + position * how.rotation.half;
      sin_[r] = how.rotation.sin + position * how.rotation.half;
      squares_[r] = 0.0F;
    }
  }

  // Bias, norm but for the row's factor, and rotation of one step: c[h][2 r + j] is row g + 8 r,
  // place 8 h + 2 t + j.
  __device__ __forceinline__ void Step(int step, float (&c)[2][4]) {
    const int t = LaneIndex() % 4;
    const float* bias = BiasOf(how_) + 16 * step + 2 * t;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      c[i / 4][i % 4] += bias[i / 4 * 8 + i % 2];
    }
    if (how_.norm_epsilon > 0.0F) {
      const float* weights = NormWeightsOf(how_) + 16 * step + 2 * t;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        squares_[i % 4 / 2] += c[i / 4][i % 4] * c[i / 4][i % 4];
        c[i / 4][i % 4] *= weights[i / 4 * 8 + i % 2];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = 8 * step + 2 * t + i % 2;
      if (pair < how_.rotation.half) {
        const float cos = cos_[i / 2][pair];
        const float sin = sin_[i / 2][pair];
        const float a = c[0][i];
        const float b = c[1][i];
        c[0][i] = a * cos - b * sin;
        c[1][i] = b * cos + a * sin;
      }
    }
  }

  // The sum of squares of row g + 8 r over the steps of this warp.
  __device__ __forceinline__ float Squares(int r) const { return WarpSum<3>(squares_[r]); }

 private:
  const LatentKeys& how_;
  const float* cos_[2];
  const float* sin_[2];
  float squares_[2];
};

// What a row's norm multiplies it by.
__device__ __forceinline__ float NormFactor(const LatentKeys& how, float squares) {
  return RSqrt(squares / static_cast<float>(how.width) + how.norm_epsilon);
}

// Makes the steps first, first + stride, ... of a tile's keys and calls sink(step, c) for each in
// turn, c as KeyFinish has it. Keys with a norm are still to be multiplied by their factor, for
// which `finish` has the squares afterwards.
template <class Sink>
__device__ __forceinline__ void RebuildTile(const LatentKeys& how,
                                            const LatentTile& tile,
                                            int first,
                                            int stride,
                                            KeyFinish& finish,
                                            const Sink& sink) {
  const int steps = how.places / 16;
  const int depth = (how.rank + 15) / 16;
  const bool exact = tile.rows.code == RowCode::kBF16;
  const auto* fragments = reinterpret_cast<const uint4*>(how.packed) + LaneIndex();
  for (int group = first; group < steps; group += kLatentSteps * stride) {
    float c[kLatentSteps][2][4] = {};
    for (int k = 0; 16 * k < tile.rows.width; k += kLatentDepth) {
      SplitTall a[kLatentDepth];
      WithDecoder(tile.rows, [&](const auto& decoder) { LoadLatents(decoder, tile, 16 * k, a); });
#pragma unroll
      for (int i = 0; i < kLatentDepth; ++i) {
#pragma unroll
        for (int s = 0; s < kLatentSteps; ++s) {
          const int step = group + s * stride;
          if (step < steps && 16 * (k + i) < tile.rows.width) {
            const uint4* at = fragments + (step * depth + k + i) * (kStepWords / 4);
            const uint4 high = Load16(at);
            const uint4 low = Load16(at + 32);
            MultiplyAddSplit(c[s][0], a[i], {{high.x, high.y}, {low.x, low.y}}, exact);
            MultiplyAddSplit(c[s][1], a[i], {{high.z, high.w}, {low.z, low.w}}, exact);
          }
        }
      }
    }
#pragma unroll
    for (int s = 0; s < kLatentSteps; ++s) {
      const int step = group + s * stride;
      if (step < steps) {
        finish.Step(step, c[s]);
        sink(step, c[s]);
      }
    }
  }
}

}  // namespace kvc::cuda
