#pragma once
// Prefill attention's products where keys are made of latents (latent_keys.cuh): the block makes a
// tile of them in shared memory, as sums of two bf16 numbers, and multiplies them by queries that
// are such sums too. Values and weights are another type's.

#include "kernels/cuda/latent_keys.cuh"
#include "kernels/cuda/prefill_products.cuh"

namespace kvc::cuda {

// ValueProducts: MatrixProducts or FloatProducts of the least key width. kKeyWidth: places of keys.
template <class ValueProducts, int kKeyWidth>
struct LatentProducts : ValueProducts {
  using ValueProducts::kKeys;
  static constexpr bool kRebuilds = true;
  static constexpr int kSteps = kKeyWidth / 16;
  static constexpr int kRowGroups = kKeys / 16;
  static constexpr int kParts = kPrefillWarps / kRowGroups;  // of a key's places
  using Plane = RowTile<__nv_bfloat16, kKeys, kKeyWidth>;
  // Latents come straight from global memory.
  struct Keys {
    __device__ __forceinline__ void Fill(const CachedRows& /*rows*/,
                                         int /*row*/,
                                         const RowRange& /*visible*/) {}
  };
  struct Shared {
    typename ValueProducts::Shared values;
    Plane high, low;
    uint4 queries[kPrefillWarps][kSteps][2][32];  // operands of each lane: high, low
    float squares[kParts][kKeys];                 // of keys, before their norm
  };

  __device__ __forceinline__ void LoadQueries(Shared& shared,
                                              const QueryRows& rows,
                                              const PrefillHead& head) {
    const int32_t* dimensions = DimensionsOf(head.latents) + LaneIndex() % 4 * 2;
    for (int step = 0; 16 * step < head.latents.places; ++step) {
      SplitTall a;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* row = rows.row[i % 2];
        const int32_t* d = dimensions + 16 * step + i / 2 * 8;
        a.Set(i, SplitPair(row != nullptr && d[0] >= 0 ? row[d[0]] : 0.0F,
                           row != nullptr && d[1] >= 0 ? row[d[1]] : 0.0F));
      }
      uint4* to = shared.queries[WarpIndex()][step][0] + LaneIndex();
      Store16(to, {a.high[0], a.high[1], a.high[2], a.high[3]});
      Store16(to + 32, {a.low[0], a.low[1], a.low[2], a.low[3]});
    }
  }

  __device__ __forceinline__ void Rebuild(Shared& shared,
                                          const PrefillHead& head,
                                          int row,
                                          const RowRange& visible) const {
    const int first = WarpIndex() % kRowGroups * 16;  // of the tile
    const int part = WarpIndex() / kRowGroups;
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
    const LatentTile tile = {head.keys, nullptr, row + first, visible};
    KeyFinish finish(head.latents, tile);
    RebuildTile(head.latents, tile, part, kParts, finish, [&](int step, const float(&c)[2][4]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const SplitPair pair(c[i / 2][i % 2 * 2], c[i / 2][i % 2 * 2 + 1]);
        const int column = 16 * step + i / 2 * 8 + 2 * t;
        shared.high.StorePair(first + g + i % 2 * 8, column, pair.high);
        shared.low.StorePair(first + g + i % 2 * 8, column, pair.low);
      }
    });
    if (head.latents.norm_epsilon > 0.0F) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float squares = finish.Squares(r);
        if (t == 0) {
          shared.squares[part][first + g + 8 * r] = squares;
        }
      }
    }
  }

  __device__ __forceinline__ void Scores(const Shared& shared,
                                         const Keys& /*keys*/,
                                         const PrefillHead& head,
                                         float (&s)[kKeys / 8][4]) const {
    const int lane = LaneIndex();
    for (int step = 0; 16 * step < head.latents.places; ++step) {
      const uint4* from = shared.queries[WarpIndex()][step][0] + lane;
      const uint4 high = Load16(from);
      const uint4 low = Load16(from + 32);
      const SplitTall a = {{high.x, high.y, high.z, high.w}, {low.x, low.y, low.z, low.w}};
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        const int row = 16 * n + lane / 16 * 8 + lane % 8;
        uint32_t h[4];
        uint32_t l[4];
        LoadMatrices(h, shared.high.At(row, 2 * step + lane / 8 % 2));
        LoadMatrices(l, shared.low.At(row, 2 * step + lane / 8 % 2));
        MultiplyAddSplit(s[2 * n], a, {{h[0], h[1]}, {l[0], l[1]}});
        MultiplyAddSplit(s[2 * n + 1], a, {{h[2], h[3]}, {l[2], l[3]}});
      }
    }
    if (head.latents.norm_epsilon > 0.0F) {
      ApplyNorm(shared, head.latents, s);
    }
  }

  __device__ __forceinline__ void Accumulate(Shared& shared,
                                             const typename ValueProducts::Values& values,
                                             int width,
                                             const float (&s)[kKeys / 8][4],
                                             float (&o)[ValueProducts::kValueSteps][2][4]) const {
    ValueProducts::Accumulate(shared.values, values, width, s, o);
  }

 private:
  __device__ __forceinline__ static void ApplyNorm(const Shared& shared,
                                                   const LatentKeys& how,
                                                   float (&s)[kKeys / 8][4]) {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) {
      const int n = i / 2;
      const int key = 8 * n + 2 * (LaneIndex() % 4) + i % 2;
      float squares = shared.squares[0][key];
#pragma unroll
      for (int part = 1; part < kParts; ++part) {
        squares += shared.squares[part][key];
      }
      const float factor = NormFactor(how, squares);
      s[n][i % 2] *= factor;
      s[n][2 + i % 2] *= factor;
    }
  }
};

}  // namespace kvc::cuda
