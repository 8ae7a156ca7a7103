// S = Q K^T and O = P V: a block takes 64 rows of queries of one kv head, a row being a query head
// of a token, and walks over the rows that they see in tiles; while one is multiplied, the next is
// copied. A warp has 16 rows of queries and meets the others once a tile.

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/prefill_latents.cuh"
#include "kernels/cuda/prefill_products.cuh"
#include "kernels/cuda/prefill_softmax.cuh"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 32 * kPrefillWarps;
static_assert(kPrefillQueries == kPrefillWarps * kWarpQueries, "a warp has 16 rows of queries");
// Of a multiprocessor: the registers that the widest kernel needs.
constexpr int kBlocksHint = 2;
constexpr int kStages = 2;
constexpr float kLog2E = 1.44269504F;

template <class Products>
struct PrefillShared {
  typename Products::Keys keys[kStages];
  typename Products::Values values[kStages];
  typename Products::Shared products;
  bool last;  // the block is the last of its queries'
};

// What a launch is given.
struct PrefillCall {
  const PrefillHead* heads;
  PrefillChunk chunk;
  PrefillRoom room;
  int32_t num_heads;
  int32_t passes;         // blocks for the columns of a head's values
  int32_t partial_width;  // of a row's outputs
};

// What a block does: 64 rows of queries of a head, a part of the rows, some columns of values.
struct BlockPlace {
  int unit;  // of those that have splits of their own
  int split;
  int head;
  int first_query;
  int column;

  __device__ __forceinline__ BlockPlace(const PrefillCall& call, int block)
      : unit(block / call.chunk.splits), split(block % call.chunk.splits) {
    const int rest = unit / call.passes;
    column = unit % call.passes * kPrefillColumns;
    head = rest % call.num_heads;
    first_query = rest / call.num_heads * kPrefillQueries;
  }
  // Columns of values with these.
  __device__ __forceinline__ int Columns(const CachedRows& values) const {
    return min(values.width - column, kPrefillColumns);
  }
};

template <class Products>
__device__ __forceinline__ void StoreOutputs(const RowState<Products>& state,
                                             float* const (&outputs)[2],
                                             int width) {
  const float factor[2] = {1.0F / WarpSum<3>(state.sum[0]), 1.0F / WarpSum<3>(state.sum[1])};
#pragma unroll
  for (int m = 0; m < Products::kValueSteps; ++m) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = Products::RowOf(i / 4, i % 4);
      const int d = Products::ColumnOf(m, i / 4, i % 4);
      if (outputs[row] != nullptr && d < width) {
        outputs[row][d] = state.o[m][i / 4][i % 4] * factor[row];
      }
    }
  }
}

// A row's partial result: outputs, maximum, sum. `to`: of the warp's first row.
template <class Products>
__device__ __forceinline__ void StorePartial(const RowState<Products>& state,
                                             int width,
                                             int stride,
                                             float* to) {
  const int g = LaneIndex() / 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float sum = WarpSum<3>(state.sum[h]);
    if (LaneIndex() % 4 == 0) {
      to[(g + 8 * h) * stride + stride - 2] = state.maximum[h];
      to[(g + 8 * h) * stride + stride - 1] = sum;
    }
  }
#pragma unroll
  for (int m = 0; m < Products::kValueSteps; ++m) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int d = Products::ColumnOf(m, i / 4, i % 4);
      if (d < width) {
        to[(g + 8 * Products::RowOf(i / 4, i % 4)) * stride + d] = state.o[m][i / 4][i % 4];
      }
    }
  }
}
// Where a lane's two rows are, null where there is no such row, and what they see.
struct LaneRows {
  QueryRows queries;
  float* outputs[2];
  RowRange visible[2];
};
__device__ __forceinline__ LaneRows RowsOfLane(const PrefillHead& head,
                                               const PrefillChunk& chunk,
                                               int warp_query,
                                               int column) {
  LaneRows rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int query = warp_query + LaneIndex() / 4 + 8 * h;
    const int token = query / chunk.group;
    const int64_t query_head = query % chunk.group;
    const bool exists = token < chunk.tokens;
    rows.queries.row[h] =
        exists ? head.queries + token * chunk.query_stride + query_head * head.query_head_stride
               : nullptr;
    rows.outputs[h] = exists ? head.outputs + token * chunk.output_stride +
                                   query_head * head.output_head_stride + column
                             : nullptr;
    rows.visible[h] = VisibleFrom(chunk, chunk.first + min(token, chunk.tokens - 1));
  }
  return rows;
}

// The partial results of 64 rows of queries from `query` on, in the order of the rows that they
// saw.
__device__ __forceinline__ void MergeSplits(const PrefillCall& call,
                                            const PrefillHead& head,
                                            const BlockPlace& place,
                                            const float* partials) {
  const PrefillChunk& chunk = call.chunk;
  const float scale = chunk.scale * kLog2E;
  const int width = place.Columns(head.values);
  const int query = place.first_query;
  const int stride = call.partial_width + 2;
  for (int i = static_cast<int>(threadIdx.x); i < kPrefillQueries * width; i += kThreads) {
    const int row = i / width;
    const int d = i % width;
    const int token = (query + row) / chunk.group;
    if (token >= chunk.tokens) {
      return;
    }
    float maximum = -INFINITY;
    for (int k = 0; k < chunk.splits; ++k) {
      const float* part = partials + (k * kPrefillQueries + row) * stride;
      maximum = fmaxf(maximum, LoadFromOthers(part + stride - 2));
    }
    float sum = 0.0F;
    float value = 0.0F;
    for (int k = 0; k < chunk.splits; ++k) {
      const float* part = partials + (k * kPrefillQueries + row) * stride;
      const float weight = Exp2((LoadFromOthers(part + stride - 2) - maximum) * scale);
      sum += weight * LoadFromOthers(part + stride - 1);
      value += weight * LoadFromOthers(part + d);
    }
    head.outputs[token * chunk.output_stride +
                 (query + row) % chunk.group * head.output_head_stride + place.column + d] =
        value / sum;
  }
}

// Ends a split: the last one of the unit merges all.
template <class Products>
__device__ __forceinline__ void FinishSplit(const PrefillCall& call,
                                            const PrefillHead& head,
                                            const RowState<Products>& state,
                                            const BlockPlace& place,
                                            bool& last) {
  const int stride = call.partial_width + 2;
  float* partials = call.room.partials + static_cast<int64_t>(place.unit) * call.chunk.splits *
                                             (kPrefillQueries * stride);
  StorePartial(state, place.Columns(head.values), stride,
               partials + (place.split * kPrefillQueries + WarpIndex() * kWarpQueries) * stride);
  SyncBlock();  // the split's partial result is complete
  if (threadIdx.x == 0) {
    Fence();
    last = AtomicAdd(call.room.arrived + place.unit, 1) == call.chunk.splits - 1;
    Fence();
  }
  SyncBlock();  // all know whether it is the last
  if (last) {
    MergeSplits(call, head, place, partials);
    if (threadIdx.x == 0) {
      call.room.arrived[place.unit] = 0;
    }
  }
}

// The part of the tiles in `rows` that a split has.
__device__ __forceinline__ RowRange TilesOfSplit(const RowRange& rows,
                                                 int keys,
                                                 int split,
                                                 int splits) {
  const int first = rows.begin / keys;
  const int tiles = (rows.end + keys - 1) / keys - first;
  const int64_t count = tiles;
  return {(first + static_cast<int>(count * split / splits)) * keys,
          min(rows.end, (first + static_cast<int>(count * (split + 1) / splits)) * keys)};
}

template <class Products>
__global__ void __launch_bounds__(kThreads, kBlocksHint) PrefillKernel(const PrefillCall call) {
  constexpr int kKeys = Products::kKeys;
  auto& shared = SharedMemory<PrefillShared<Products>>();
  const PrefillChunk& chunk = call.chunk;
  // The last tokens see most: their blocks come first.
  const BlockPlace place(call, static_cast<int>(gridDim.x - 1 - blockIdx.x));
  const PrefillHead& head = call.heads[place.head];
  // Their fields are read once, and not again after each barrier.
  const CachedRows key_rows = head.keys;
  const CachedRows value_rows = head.values;
  const int columns = place.Columns(head.values);
  if (columns <= 0) {
    return;  // another head's values are wider
  }
  const int warp_query = place.first_query + WarpIndex() * kWarpQueries;
  const RowRange rows = VisibleFromAny(chunk, place.first_query, kPrefillQueries);
  const RowRange warp_rows = VisibleFromAny(chunk, warp_query, kWarpQueries);
  const RowRange tiles = TilesOfSplit(rows, kKeys, place.split, chunk.splits);
  const LaneRows lane_rows = RowsOfLane(head, chunk, warp_query, place.column);

  if (tiles.begin < tiles.end) {
    shared.keys[0].Fill(key_rows, tiles.begin, rows);
    shared.values[0].Fill(value_rows, tiles.begin, rows, place.column);
  }
  CommitCopies();
  Products products;
  products.LoadQueries(shared.products, lane_rows.queries, head);
  RowState<Products> state;
  state.Clear(lane_rows.visible);
  const float scale = chunk.scale * kLog2E;
  int stage = 0;
  for (int tile = tiles.begin; tile < tiles.end; tile += kKeys) {
    WaitCopies<0>();
    SyncBlock();  // the tile is complete, and the other stage has been read
    if (tile + kKeys < tiles.end) {
      shared.keys[stage ^ 1].Fill(key_rows, tile + kKeys, rows);
      shared.values[stage ^ 1].Fill(value_rows, tile + kKeys, rows, place.column);
      CommitCopies();
    }
    if constexpr (Products::kRebuilds) {
      products.Rebuild(shared.products, head, tile, rows);
      SyncBlock();  // the tile's keys are made
    }
    if (tile < warp_rows.end && tile + kKeys > warp_rows.begin) {
      float s[kKeys / 8][4] = {};
      products.Scores(shared.products, shared.keys[stage], head, s);
      state.Weigh(s, tile, scale);
      products.Accumulate(shared.products, shared.values[stage], columns, s, state.o);
    }
    stage ^= 1;
  }
  if (chunk.splits == 1) {
    StoreOutputs(state, lane_rows.outputs, columns);
  } else {
    FinishSplit(call, head, state, place, shared.last);
  }
}

template <class Products>
void LaunchPrefill(const PrefillCall& call, StreamHandle stream) {
  const PrefillChunk& chunk = call.chunk;
  const int64_t tiles =
      (int64_t{chunk.tokens} * chunk.group + kPrefillQueries - 1) / kPrefillQueries;
  Launch(PrefillKernel<Products>,
         LaunchShape("PrefillKernel",
                     static_cast<unsigned>(tiles * call.num_heads * call.passes * chunk.splits),
                     kThreads, sizeof(PrefillShared<Products>)),
         stream, call);
}

template <int kKeyWidth, int kValueWidth>
void LaunchPrefillOf(const PrefillPlan& plan, const PrefillCall& call, StreamHandle stream) {
  using Brains = MatrixProducts<__nv_bfloat16, 16, kValueWidth>;
  using Floats = FloatProducts<16, kValueWidth>;
  if (plan.latents && plan.rows == RowCode::kBF16) {
    return LaunchPrefill<LatentProducts<Brains, kKeyWidth>>(call, stream);
  }
  if (plan.latents) {
    return LaunchPrefill<LatentProducts<Floats, kKeyWidth>>(call, stream);
  }
  switch (plan.rows) {
    case RowCode::kBF16:
      return LaunchPrefill<MatrixProducts<__nv_bfloat16, kKeyWidth, kValueWidth>>(call, stream);
    case RowCode::kF16:
      if constexpr (kKeyWidth <= 128) {
        return LaunchPrefill<MatrixProducts<__half, kKeyWidth, kValueWidth>>(call, stream);
      }
      [[fallthrough]];
    default:
      return LaunchPrefill<FloatProducts<kKeyWidth, kValueWidth>>(call, stream);
  }
}

void CheckChunk(const PrefillPlan& plan, const PrefillChunk& chunk) {
  KVC_CHECK(chunk.tokens >= 0 && chunk.first >= 0 && chunk.group >= 1 && chunk.window >= 0 &&
                chunk.splits >= 1,
            kBadShape,
            "prefill attention: expected tokens, a first position and a window of 0 or more, a "
            "group and splits of 1 or more, got {}, {}, {}, {} and {}",
            chunk.tokens, chunk.first, chunk.window, chunk.group, chunk.splits);
  constexpr int64_t kMost = 0x7fffffff - kPrefillQueries;
  const int64_t queries = int64_t{chunk.tokens} * chunk.group;
  KVC_CHECK(
      queries <= kMost &&
          queries / kPrefillQueries * plan.heads <= kMost / PrefillPasses(plan) / chunk.splits &&
          int64_t{chunk.first} + chunk.tokens <= kMost,
      kBadShape,
      "prefill attention: expected fewer than 2^31 queries and positions, got {} tokens at "
      "{} of {} x {} heads; use smaller chunks",
      chunk.tokens, chunk.first, plan.heads, chunk.group);
  KVC_CHECK(chunk.scale > 0.0F, kBadShape, "prefill attention: expected a scale above 0, got {}",
            chunk.scale);
}

}  // namespace

void PrefillAttention(const PrefillHead* heads,
                      const PrefillPlan& plan,
                      const PrefillChunk& chunk,
                      const PrefillRoom& room,
                      StreamHandle stream) {
  CheckChunk(plan, chunk);
  if (chunk.tokens == 0 || plan.heads == 0) {
    return;
  }
  const PrefillCall call = {heads,
                            chunk,
                            room,
                            plan.heads,
                            PrefillPasses(plan),
                            std::min(plan.value_width, kPrefillColumns)};
  if (plan.key_width <= 64 && plan.value_width <= 64) {
    LaunchPrefillOf<64, 64>(plan, call, stream);
  } else if (plan.key_width <= 64) {
    LaunchPrefillOf<64, 128>(plan, call, stream);
  } else if (plan.key_width <= 128 && plan.value_width <= 128) {
    LaunchPrefillOf<128, 128>(plan, call, stream);
  } else {
    LaunchPrefillOf<256, 128>(plan, call, stream);
  }
}

}  // namespace kvc::cuda
