// S = Q K^T and O = P V: a block takes 64 rows of queries of one kv head, a row being a query head
// of a token, and walks over the rows that they see in tiles; while one is multiplied, the next is
// copied. A warp has 16 rows of queries and meets the others once a tile.

#include <cmath>

#include "core/base/error.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/prefill_products.cuh"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 32 * kPrefillWarps;
constexpr int kBlockQueries = kPrefillWarps * kWarpQueries;
// Of a multiprocessor: the registers that the widest kernel needs.
constexpr int kBlocksHint = 2;
constexpr int kStages = 2;
constexpr float kLog2E = 1.44269504F;

template <class Products>
struct PrefillShared {
  typename Products::Keys keys[kStages];
  typename Products::Values values[kStages];
  typename Products::Shared products;
};

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

// Where a lane's two rows are, null where there is no such row, and what they see.
struct LaneRows {
  QueryRows queries;
  float* outputs[2];
  RowRange visible[2];
};
__device__ __forceinline__ LaneRows RowsOfLane(const PrefillHead& head,
                                               const PrefillChunk& chunk,
                                               int warp_query) {
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
    rows.outputs[h] =
        exists ? head.outputs + token * chunk.output_stride + query_head * head.output_head_stride
               : nullptr;
    rows.visible[h] = VisibleFrom(chunk, chunk.first + min(token, chunk.tokens - 1));
  }
  return rows;
}

template <class Products>
__global__ void __launch_bounds__(kThreads, kBlocksHint)
    PrefillKernel(const PrefillHead* heads, const PrefillChunk chunk, int num_heads) {
  constexpr int kKeys = Products::kKeys;
  auto& shared = SharedMemory<PrefillShared<Products>>();
  // The last tokens see most: their blocks come first.
  const auto block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const PrefillHead head = heads[block % num_heads];
  const int first_query = block / num_heads * kBlockQueries;
  const int warp_query = first_query + WarpIndex() * kWarpQueries;
  const RowRange rows = VisibleFromAny(chunk, first_query, kBlockQueries);
  const RowRange warp_rows = VisibleFromAny(chunk, warp_query, kWarpQueries);
  const LaneRows lane_rows = RowsOfLane(head, chunk, warp_query);

  const int first_tile = rows.begin / kKeys * kKeys;
  shared.keys[0].Fill(head.keys, first_tile, rows);
  shared.values[0].Fill(head.values, first_tile, rows);
  CommitCopies();
  Products products;
  products.LoadQueries(shared.products, lane_rows.queries, head.keys.width);
  RowState<Products> state;
  state.Clear(lane_rows.visible);
  const float scale = chunk.scale * kLog2E;
  int stage = 0;
  for (int tile = first_tile; tile < rows.end; tile += kKeys) {
    WaitCopies<0>();
    SyncBlock();  // the tile is complete, and the other stage has been read
    if (tile + kKeys < rows.end) {
      shared.keys[stage ^ 1].Fill(head.keys, tile + kKeys, rows);
      shared.values[stage ^ 1].Fill(head.values, tile + kKeys, rows);
      CommitCopies();
    }
    if (tile < warp_rows.end && tile + kKeys > warp_rows.begin) {
      float s[kKeys / 8][4] = {};
      products.Scores(shared.products, shared.keys[stage], head.keys.width, s);
      state.Weigh(s, tile, scale);
      products.Accumulate(shared.products, shared.values[stage], head.values.width, s, state.o);
    }
    stage ^= 1;
  }
  StoreOutputs(state, lane_rows.outputs, head.values.width);
}

template <class Products>
void LaunchPrefill(const PrefillHead* heads,
                   const PrefillPlan& plan,
                   const PrefillChunk& chunk,
                   StreamHandle stream) {
  const int64_t tiles = (int64_t{chunk.tokens} * chunk.group + kBlockQueries - 1) / kBlockQueries;
  Launch(PrefillKernel<Products>,
         LaunchShape("PrefillKernel", static_cast<unsigned>(tiles * plan.heads), kThreads,
                     sizeof(PrefillShared<Products>)),
         stream, heads, chunk, plan.heads);
}

template <int kKeyWidth, int kValueWidth>
void LaunchPrefillOf(const PrefillHead* heads,
                     const PrefillPlan& plan,
                     const PrefillChunk& chunk,
                     StreamHandle stream) {
  switch (plan.rows) {
    case RowCode::kBF16:
      return LaunchPrefill<MatrixProducts<__nv_bfloat16, kKeyWidth, kValueWidth>>(heads, plan,
                                                                                  chunk, stream);
    case RowCode::kF16:
      return LaunchPrefill<MatrixProducts<__half, kKeyWidth, kValueWidth>>(heads, plan, chunk,
                                                                           stream);
    default:
      return LaunchPrefill<FloatProducts<kKeyWidth, kValueWidth>>(heads, plan, chunk, stream);
  }
}

void CheckChunk(const PrefillPlan& plan, const PrefillChunk& chunk) {
  KVC_CHECK(chunk.tokens >= 0 && chunk.first >= 0 && chunk.group >= 1 && chunk.window >= 0,
            kBadShape,
            "prefill attention: expected tokens, a first position and a window of 0 or more and a "
            "group of 1 or more, got {}, {}, {} and {}",
            chunk.tokens, chunk.first, chunk.window, chunk.group);
  constexpr int64_t kMost = 0x7fffffff - kBlockQueries;
  const int64_t queries = int64_t{chunk.tokens} * chunk.group;
  KVC_CHECK(queries <= kMost && queries / kBlockQueries * plan.heads <= kMost &&
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
                      StreamHandle stream) {
  CheckChunk(plan, chunk);
  if (chunk.tokens == 0 || plan.heads == 0) {
    return;
  }
  if (plan.key_width <= 64 && plan.value_width <= 64) {
    LaunchPrefillOf<64, 64>(heads, plan, chunk, stream);
  } else if (plan.key_width <= 64) {
    LaunchPrefillOf<64, 128>(heads, plan, chunk, stream);
  } else {
    LaunchPrefillOf<128, 128>(heads, plan, chunk, stream);
  }
}

}  // namespace kvc::cuda
