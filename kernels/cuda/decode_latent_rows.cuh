#pragma once
// The reader of latents (decode_rows.cuh): a warp makes the keys of 16 rows (latent_keys.cuh), some
// dimensions at a time, and multiplies them by the queries where they are, in registers. Values are
// read as MixedRows reads them.

#include "kernels/cuda/decode_mixed_rows.cuh"
#include "kernels/cuda/latent_keys.cuh"

namespace kvc::cuda {

template <int kWidth>
struct LatentRows {
  using Values = MixedRows<kWidth, 2>;
  static constexpr int kStages = 1;
  static constexpr int kBlocks = kWidth <= 64 ? 3 : Values::kBlocks;
  static constexpr int kSteps = Values::kSteps;
  static constexpr int kKeyChunks = 1;  // not used
  static constexpr int kValueChunks = Values::kValueChunks;
  // A lane's queries of a step of places: two words of high halves, two of low ones.
  struct QueryShared {
    uint4 lanes[kSteps][32];
  };
  struct Queries {
    const QueryShared* shared;
    const LatentKeys* how;
  };

  __device__ static __forceinline__ void CopyKeys(uint4* /*tile*/,
                                                  const CachedRows& /*rows*/,
                                                  int /*row*/,
                                                  int /*end*/) {}
  __device__ static __forceinline__ void CopyValues(uint4* tile,
                                                    const CachedRows& rows,
                                                    int row,
                                                    int end) {
    Values::CopyValues(tile, rows, row, end);
  }

  // The block's barrier also keeps the head before's readers apart: they met since.
  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& shared,
                                                     Queries& queries) {
    const int32_t* dimensions = DimensionsOf(head.latents);
    for (int i = static_cast<int>(threadIdx.x); i < 2 * head.latents.places;
         i += static_cast<int>(blockDim.x)) {
      const int g = i % 32 / 4;
      const int32_t* place = dimensions + i / 32 * 16 + i % 4 * 2;
      const float* row = head.queries + static_cast<int64_t>(g) * head.query_stride;
      const auto at = [&](int p) { return g < head.group && place[p] >= 0 ? row[place[p]] : 0.0F; };
      const SplitPair first(at(0), at(1));
      const SplitPair second(at(8), at(9));
      Store16(&shared.lanes[i / 32][i % 32], {first.high, second.high, first.low, second.low});
    }
    SyncBlock();  // the queries are there
    queries.shared = &shared;
    queries.how = &head.latents;
  }

  // Latents have no steps, but values may.
  __device__ static __forceinline__ void Enter(const DecodeHead& /*head*/,
                                               const DecodeSegment& segment,
                                               Queries& /*queries*/,
                                               float (&o)[kSteps][4]) {
    CountInSteps<true>(segment.values, o);
  }
  __device__ static __forceinline__ void Leave(const DecodeSegment& segment,
                                               float (&o)[kSteps][4]) {
    CountInSteps<false>(segment.values, o);
  }

  __device__ static __forceinline__ void Scores(const KeyTile& keys,
                                                const Queries& queries,
                                                float (&s)[4]) {
    const LatentTile tile = {
        keys.segment.keys, keys.segment.positions, keys.row, {keys.row, keys.end}};
    KeyFinish finish(*queries.how, tile);
    RebuildTile(*queries.how, tile, 0, 1, finish, [&](int step, const float(&c)[2][4]) {
      SplitTall k;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        k.Set(i, SplitPair(c[i / 2][i % 2 * 2], c[i / 2][i % 2 * 2 + 1]));
      }
      const uint4 q = Load16(&queries.shared->lanes[step][LaneIndex()]);
      MultiplyAddSplit(s, k, {{q.x, q.y}, {q.z, q.w}});
    });
    if (queries.how->norm_epsilon > 0.0F) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float factor = NormFactor(*queries.how, finish.Squares(r));
        s[2 * r] *= factor;
        s[2 * r + 1] *= factor;
      }
    }
  }

  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    const CachedRows& values,
                                                    const float (&p)[4]) {
    Values::Accumulate(o, tile, values, p);
  }
};

}  // namespace kvc::cuda
