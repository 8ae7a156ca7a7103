// A block owns 64 tokens of a tier and goes through the window's queries of its head in their
// order. Tokens are loaded again for each 64 queries: a window has few.

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/score_passes.h"
#include "kernels/cuda/score_sums.cuh"
#include "kernels/cuda/score_tile.cuh"
#include "kernels/cuda/tier_losses.h"

namespace kvc::cuda {
namespace {

constexpr int kMostTiers = 65535;  // the grid's second dimension
// As kLeastRest of scorers/tier_loss.cc: the smallest normal float, whose inverse is one too.
constexpr float kLeastRest = 0x1p-126F;

template <int kWidth>
struct TierShared {
  ScoreTile<kWidth> queries;                        // rows of M, queries, or their o M
  ScoreTile<kWidth> tokens;                         // keys or values
  ScoreTile<kWidth> moved;                          // how far the tier moves them
  float norms[kMostScoreGroup][kTileEdge];          // v M v^T
  float value_crosses[kMostScoreGroup][kTileEdge];  // v M (v^ - v)^T
  float squares[kMostScoreGroup][kTileEdge];        // (v^ - v) M (v^ - v)^T
  QueryState states[kTileEdge];
  ReduceShared reduce;
};

// Rows first .. first + 63 and how far a tier's rows lie from them; no tier's rows: not at all.
template <int kWidth>
__device__ __forceinline__ void LoadMoved(const CachedRows& rows,
                                          const CachedRows& tier,
                                          int first,
                                          int end,
                                          ScoreTile<kWidth>& tokens,
                                          ScoreTile<kWidth>& moved) {
  for (int r = WarpIndex(); r < kTileEdge; r += kScoreWarps) {
    float from[kWidth / 32] = {};
    float to[kWidth / 32] = {};
    if (first + r < end) {
      LoadRow(rows, first + r, rows.width, from);
      if (tier.data != nullptr) {
        LoadRow(tier, first + r, tier.width, to);
      }
    }
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      tokens[r][LaneIndex() + 32 * c] = from[c];
      moved[r][LaneIndex() + 32 * c] = tier.data != nullptr ? to[c] - from[c] : 0.0F;
    }
  }
}

__device__ __forceinline__ void KeepTokens(float (&to)[kTileEdge], float x) {
  if (threadIdx.x < kTileEdge) {
    to[threadIdx.x] = x;
  }
}

// The forms of the block's tokens for every query head.
template <int kWidth>
__device__ __forceinline__ void FindForms(const ScoreCall& call,
                                          const ScoreHead& head,
                                          const ScoreTier& tier,
                                          int first,
                                          TierShared<kWidth>& shared) {
  const int width = head.values.width;
  LoadMoved<kWidth>(head.values, tier.values, first, head.rows, shared.tokens, shared.moved);
  for (int h = 0; h < head.group; ++h) {
    const int token = first + static_cast<int>(threadIdx.x);
    const int64_t at = head.scratch.norms + static_cast<int64_t>(h) * head.rows;
    KeepTokens(shared.norms[h],
               threadIdx.x < kTileEdge && token < head.rows ? call.scratch[at + token] : 0.0F);
    float cross[4] = {};
    float square[4] = {};
    const float* gram = head.grams + static_cast<int64_t>(h) * width * width;
    for (int e = 0; e < width && tier.values.data != nullptr; e += kTileEdge) {
      SyncBlock();  // the rows before have been read
      LoadFloats<kWidth>(gram, width, e, width, shared.queries);
      SyncBlock();  // tokens and these rows are there
      float c[4][4];
      Products<kWidth>(shared.queries, shared.moved, width, c);
      AddForms<kWidth>(c, shared.tokens, e, cross);
      AddForms<kWidth>(c, shared.moved, e, square);
    }
    KeepTokens(shared.value_crosses[h], SumOverQueries(cross, shared.reduce));
    KeepTokens(shared.squares[h], SumOverQueries(square, shared.reduce));
  }
}

// How strongly a replaced row shows in the output (scorers/tier_loss.h), for an attention of a
// with rest = 1 - a. Neither e^eps nor its inverse overflows.
struct Weights {
  float change;  // c
  float value;   // w

  __device__ __forceinline__ Weights(float a, float rest, float eps) {
    if (eps > 0.0F) {
      // An attention below the normal floats has no inverse.
      const float inverse = 1.0F / fmaxf(rest * expf(-eps) + a, kLeastRest);
      change = -a * expm1f(-eps) * inverse;
      value = a * inverse;
    } else {
      const float factor = a * expf(eps);
      const float inverse = 1.0F / (rest + factor);
      change = a * expm1f(eps) * inverse;
      value = factor * inverse;
    }
  }
};

// What a token's rows are for one query.
struct TokenOfQuery {
  float a;
  float eps;
  float norm;          // v M v^T
  float output_cross;  // o M v^T
  float value_cross;   // v M (v^ - v)^T
  float moved_cross;   // o M (v^ - v)^T
  float moved_square;  // (v^ - v) M (v^ - v)^T
};

// c^2 |v - o|^2 + 2 c w (v - o) M (v^ - v)^T + w^2 |v^ - v|^2
__device__ __forceinline__ float LossOf(Weights weights, float square, float cross, float moved) {
  const float loss = weights.change * weights.change * square +
                     2.0F * weights.change * weights.value * cross +
                     weights.value * weights.value * moved;
  return loss < 0.0F ? 0.0F : loss;
}

__device__ __forceinline__ float LossOf(const TokenOfQuery& token, const QueryState& state) {
  const float square = token.norm - 2.0F * token.output_cross + state.own;
  return LossOf(Weights(token.a, 1.0F - token.a, token.eps), square < 0.0F ? 0.0F : square,
                token.value_cross - token.moved_cross, token.moved_square);
}

// Of the dominant token, with v - o = rest (v - o'); `change` is (v - o') M.
template <int kWidth>
__device__ __forceinline__ float DominantLoss(const TokenOfQuery& token,
                                              const QueryState& state,
                                              const float* change,
                                              int width,
                                              const float (&moved)[kWidth + 4]) {
  const float rest = state.rest > kLeastRest ? state.rest : kLeastRest;
  Weights weights(token.a, rest, token.eps);
  weights.change *= rest;
  float cross = 0.0F;
  for (int d = 0; d < width; ++d) {
    cross += change[d] * moved[d];
  }
  return LossOf(weights, state.square, cross, token.moved_square);
}

// What products say of a thread's queries and tokens.
struct TierProducts {
  float logits[4][4];
  float eps[4][4];
  float crosses[4][4];  // o M v^T
  float moved[4][4];    // o M (v^ - v)^T
};

template <int kWidth>
__device__ __forceinline__ void Multiply(const ScoreCall& call,
                                         const ScoreHead& head,
                                         const ScoreTier& tier,
                                         int first,
                                         int n,
                                         TierShared<kWidth>& shared,
                                         TierProducts& products) {
  SyncBlock();  // what was there before has been read
  LoadFloats<kWidth>(call.scratch + head.scratch.queries, head.keys.width, n, head.queries,
                     shared.queries);
  LoadMoved<kWidth>(head.keys, tier.keys, first, head.rows, shared.tokens, shared.moved);
  LoadStates(call, head, n, shared.states);
  SyncBlock();  // queries, keys and states are there
  Products<kWidth>(shared.queries, shared.tokens, head.keys.width, products.logits);
  Products<kWidth>(shared.queries, shared.moved, head.keys.width, products.eps);
  SyncBlock();  // queries and keys have been read
  LoadFloats<kWidth>(call.scratch + head.scratch.projected, head.values.width, n, head.queries,
                     shared.queries);
  LoadMoved<kWidth>(head.values, tier.values, first, head.rows, shared.tokens, shared.moved);
  SyncBlock();  // outputs and values are there
  Products<kWidth>(shared.queries, shared.tokens, head.values.width, products.crosses);
  Products<kWidth>(shared.queries, shared.moved, head.values.width, products.moved);
}

// Adds what queries n .. n + 63 lose.
template <int kWidth>
__device__ __forceinline__ void AddLosses(const ScoreCall& call,
                                          const ScoreHead& head,
                                          int first,
                                          int n,
                                          const TierShared<kWidth>& shared,
                                          const TierProducts& products,
                                          float (&sums)[4],
                                          float (&maxima)[4]) {
  const int width = head.values.width;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = TileY() + 16 * i;
    if (n + row >= head.group * head.window_count) {
      break;
    }
    const QueryState& state = shared.states[row];
    const int visible = VisibleTo(head, n + row);
    const int h = QueryHeadOf(head, n + row);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int column = TileX() + 16 * j;
      const int at = first + column;
      TokenOfQuery token;
      token.a = at < visible ? Exp2(products.logits[i][j] * (call.scale * kLog2E) - state.maximum) *
                                   state.inverse
                             : 0.0F;
      if (token.a == 0.0F) {
        continue;
      }
      token.eps = products.eps[i][j] * call.scale;
      token.norm = shared.norms[h][column];
      token.output_cross = products.crosses[i][j];
      token.value_cross = shared.value_crosses[h][column];
      token.moved_cross = products.moved[i][j];
      token.moved_square = shared.squares[h][column];
      const float loss = at == state.dominant
                             ? DominantLoss<kWidth>(token, state,
                                                    call.scratch + head.scratch.changed +
                                                        static_cast<int64_t>(n + row) * width,
                                                    width, shared.moved[column])
                             : LossOf(token, state);
      sums[j] += loss;
      maxima[j] = LargerOrNaN(maxima[j], loss);
    }
  }
}

// One block of a multiprocessor: its products fill the registers.
template <int kWidth>
__global__ void __launch_bounds__(kScoreThreads, 1)
    TierLossKernel(const ScoreCall call, const ScoreTier* tiers, bool maximum) {
  const ScoreTier& tier = tiers[blockIdx.y];
  const ScoreHead& head = call.heads[tier.head];
  const int first = static_cast<int>(blockIdx.x) * kTileEdge;
  if (first >= head.rows) {
    return;
  }
  auto& shared = SharedMemory<TierShared<kWidth>>();
  FindForms<kWidth>(call, head, tier, first, shared);
  float sums[4] = {};
  float maxima[4] = {};
  for (int n = 0; n < head.group * head.window_count; n += kTileEdge) {
    TierProducts products;
    Multiply<kWidth>(call, head, tier, first, n, shared, products);
    AddLosses<kWidth>(call, head, first, n, shared, products, sums, maxima);
  }
  const float loss =
      maximum ? MostOverQueries(maxima, shared.reduce) : SumOverQueries(sums, shared.reduce);
  const int token = first + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kTileEdge && token < head.rows) {
    tier.losses[token] = loss;
  }
}

template <int kWidth>
void LaunchTierLosses(const ScorePlan& plan,
                      const ScoreCall& call,
                      const ScoreTier* tiers,
                      int32_t count,
                      bool maximum,
                      StreamHandle stream) {
  LaunchShape shape("TierLossKernel", BlocksFor(plan.most_rows, kTileEdge), kScoreThreads,
                    sizeof(TierShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(count);
  Launch(TierLossKernel<kWidth>, shape, stream, call, tiers, maximum);
}

}  // namespace

void TierLosses(const ScorePlan& plan,
                const ScoreHead* heads,
                float* scratch,
                float scale,
                const ScoreTier* tiers,
                int32_t count,
                bool maximum,
                StreamHandle stream) {
  KVC_CHECK(count <= kMostTiers, kBadShape, "tier losses: expected at most {} tiers, got {}",
            kMostTiers, count);
  if (count == 0 || plan.most_rows == 0) {
    return;
  }
  const ScoreCall call = {heads, scratch, scale};
  if (plan.width == 64) {
    LaunchTierLosses<64>(plan, call, tiers, count, maximum, stream);
  } else {
    LaunchTierLosses<128>(plan, call, tiers, count, maximum, stream);
  }
}

}  // namespace kvc::cuda
