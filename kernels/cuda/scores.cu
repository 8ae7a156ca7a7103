// The second pass: a block owns 64 tokens and goes through all queries of its head in their order.

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/score_passes.h"
#include "kernels/cuda/score_sums.cuh"
#include "kernels/cuda/score_tile.cuh"
#include "kernels/cuda/scores.h"

namespace kvc::cuda {
namespace {

template <int kWidth>
struct NormShared {
  ScoreTile<kWidth> values;
  ScoreTile<kWidth> gram;  // 64 rows of M_h
  ReduceShared reduce;
};

// A block for 64 tokens and a query head: v M v^T = sum_e (M_e . v) v_e.
template <int kWidth>
__global__ void __launch_bounds__(kScoreThreads, kScoreBlocksHint)
    NormsKernel(const ScoreCall call, int groups) {
  const ScoreHead& head = call.heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) / groups * kTileEdge;
  const int h = static_cast<int>(blockIdx.x) % groups;
  if (first >= head.rows || h >= head.group) {
    return;
  }
  auto& shared = SharedMemory<NormShared<kWidth>>();
  const int width = head.values.width;
  const float* gram = head.grams + static_cast<int64_t>(h) * width * width;
  LoadTokens<kWidth>(head.values, first, head.rows, shared.values);
  float norm[4] = {};
  for (int e = 0; e < width; e += kTileEdge) {
    SyncBlock();  // the rows before have been read
    LoadFloats<kWidth>(gram, width, e, width, shared.gram);
    SyncBlock();  // values and these rows are there
    float c[4][4];
    Products<kWidth>(shared.gram, shared.values, width, c);
    AddForms<kWidth>(c, shared.values, e, norm);
  }
  const float total = SumOverQueries(norm, shared.reduce);
  const int token = first + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kTileEdge && token < head.rows) {
    call.scratch[head.scratch.norms + static_cast<int64_t>(h) * head.rows + token] = total;
  }
}

template <int kWidth>
struct TokenShared {
  ScoreTile<kWidth> keys;
  ScoreTile<kWidth> values;
  ScoreTile<kWidth> queries;  // then their o M
  float norms[kMostScoreGroup][kTileEdge];
  QueryState states[kTileEdge];
  ReduceShared reduce;
};

// What a thread has summed of its four tokens.
struct TokenSums {
  float attention[4] = {};
  float errors[4] = {};
  float maxima[4] = {};
  float prompt[4] = {};
};

// The errors of a query's row: cross = o M v^T becomes e.
__device__ __forceinline__ float ErrorOf(const QueryState& state,
                                         float a,
                                         float norm,
                                         float cross) {
  const float square = norm - 2.0F * cross + state.own;
  const float share = a / (1.0F - a);
  return share * share * (square < 0.0F ? 0.0F : square);
}

// Adds what 64 queries from `first_query` on say of the block's tokens.
template <int kWidth, bool kErrors>
__device__ __forceinline__ void AddQueries(const ScoreHead& head,
                                           int first_query,
                                           int first,
                                           float scale,
                                           const float (&s)[4][4],
                                           const float (&cross)[4][4],
                                           const TokenShared<kWidth>& shared,
                                           TokenSums& sums) {
  const int window = head.group * head.window_count;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = TileY() + 16 * i;
    const int n = first_query + row;
    if (n >= head.queries) {
      break;
    }
    const QueryState& state = shared.states[row];
    const int visible = VisibleTo(head, n);
    const int h = QueryHeadOf(head, n);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int token = first + TileX() + 16 * j;
      const float a =
          token < visible ? Exp2(s[i][j] * scale - state.maximum) * state.inverse : 0.0F;
      float e = 0.0F;
      if constexpr (kErrors) {
        e = token == state.dominant
                ? state.dominant_error
                : ErrorOf(state, a, shared.norms[h][TileX() + 16 * j], cross[i][j]);
      }
      if (n < window) {
        sums.attention[j] += a;
        sums.errors[j] += e;
        sums.maxima[j] = LargerOrNaN(sums.maxima[j], e);
      } else {
        sums.prompt[j] += e;
      }
    }
  }
}

__device__ __forceinline__ void StoreTokens(float* to, int first, int rows, float x) {
  const int token = first + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kTileEdge && token < rows) {
    to[token] = x;
  }
}

template <int kWidth, bool kErrors>
__device__ __forceinline__ void LoadTokensOf(const ScoreCall& call,
                                             const ScoreHead& head,
                                             int first,
                                             TokenShared<kWidth>& shared) {
  LoadTokens<kWidth>(head.keys, first, head.rows, shared.keys);
  if constexpr (kErrors) {
    LoadTokens<kWidth>(head.values, first, head.rows, shared.values);
    for (int i = static_cast<int>(threadIdx.x); i < head.group * kTileEdge; i += kScoreThreads) {
      const int token = first + i % kTileEdge;
      const int64_t at = head.scratch.norms + static_cast<int64_t>(i / kTileEdge) * head.rows;
      shared.norms[i / kTileEdge][i % kTileEdge] =
          token < head.rows ? call.scratch[at + token] : 0.0F;
    }
  }
}

// A block for 64 tokens of a head.
template <int kWidth, bool kErrors>
__global__ void __launch_bounds__(kScoreThreads, kScoreBlocksHint)
    TokenPassKernel(const ScoreCall call) {
  const ScoreHead& head = call.heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kTileEdge;
  if (first >= head.rows) {
    return;
  }
  auto& shared = SharedMemory<TokenShared<kWidth>>();
  LoadTokensOf<kWidth, kErrors>(call, head, first, shared);
  TokenSums sums;
  for (int n = 0; n < head.queries; n += kTileEdge) {
    SyncBlock();  // the queries before have been read
    LoadFloats<kWidth>(call.scratch + head.scratch.queries, head.keys.width, n, head.queries,
                       shared.queries);
    LoadStates(call, head, n, shared.states);
    SyncBlock();  // keys, queries and states are there
    float s[4][4];
    Products<kWidth>(shared.queries, shared.keys, head.keys.width, s);
    float cross[4][4] = {};
    if constexpr (kErrors) {
      SyncBlock();  // queries have been read
      LoadFloats<kWidth>(call.scratch + head.scratch.projected, head.values.width, n, head.queries,
                         shared.queries);
      SyncBlock();  // their outputs are there
      Products<kWidth>(shared.queries, shared.values, head.values.width, cross);
    }
    AddQueries<kWidth, kErrors>(head, n, first, call.scale * kLog2E, s, cross, shared, sums);
  }
  if (head.attention != nullptr) {
    StoreTokens(head.attention, first, head.rows, SumOverQueries(sums.attention, shared.reduce));
  }
  if (head.error_sums != nullptr) {
    StoreTokens(head.error_sums, first, head.rows, SumOverQueries(sums.errors, shared.reduce));
  }
  if (head.error_maxima != nullptr) {
    StoreTokens(head.error_maxima, first, head.rows, MostOverQueries(sums.maxima, shared.reduce));
  }
  if (head.prompt_errors != nullptr) {
    StoreTokens(head.prompt_errors, first, head.rows, SumOverQueries(sums.prompt, shared.reduce));
  }
}

template <int kWidth>
void LaunchNorms(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  LaunchShape shape("NormsKernel",
                    BlocksFor(plan.most_rows, kTileEdge) * static_cast<unsigned>(plan.most_group),
                    kScoreThreads, sizeof(NormShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  Launch(NormsKernel<kWidth>, shape, stream, call, plan.most_group);
}

template <int kWidth>
void LaunchTokenPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  LaunchShape shape("TokenPassKernel", BlocksFor(plan.most_rows, kTileEdge), kScoreThreads,
                    sizeof(TokenShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  if (plan.errors) {
    Launch(TokenPassKernel<kWidth, true>, shape, stream, call);
  } else {
    Launch(TokenPassKernel<kWidth, false>, shape, stream, call);
  }
}

}  // namespace

void FindNorms(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchNorms<64>(plan, call, stream);
  } else {
    LaunchNorms<128>(plan, call, stream);
  }
}

void RunTokenPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchTokenPass<64>(plan, call, stream);
  } else {
    LaunchTokenPass<128>(plan, call, stream);
  }
}

void SumScores(const ScorePlan& plan,
               const ScoreHead* heads,
               float* scratch,
               float scale,
               StreamHandle stream) {
  if (plan.most_rows == 0) {
    return;
  }
  const ScoreCall call = {heads, scratch, scale};
  if (plan.most_queries > 0) {
    GatherQueries(plan, call, stream);
    RunQueryPass(plan, call, stream);
    FindQueryStates(plan, call, stream);
  }
  if (plan.errors) {
    FindNorms(plan, call, stream);
  }
  RunTokenPass(plan, call, stream);
}

}  // namespace kvc::cuda
