// Queries of scores, and the first pass over them: O = softmax(Q K^T) V, 64 queries of a block, 64
// tokens at a time. In each row the token with the largest logit stays out of the sums; when a
// larger one comes, it is added. So at the end the output of all the others is at hand.

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/score_passes.h"
#include "kernels/cuda/score_tile.cuh"

namespace kvc::cuda {
namespace {

// A thread for each pair (d, d + half) of each query.
__global__ void __launch_bounds__(kElementThreads) GatherKernel(const ScoreCall call) {
  const ScoreHead& head = call.heads[blockIdx.y];
  const int width = head.keys.width;
  const int half = (width + 1) / 2;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int n = static_cast<int>(item / half);
  const int d = static_cast<int>(item % half);
  if (n >= head.queries) {
    return;
  }
  const int h = QueryHeadOf(head, n);
  const int window = head.group * head.window_count;
  const bool paired = d + half < width;
  const QueryTurn& turn = head.turn;
  const float* query;
  int row;
  int64_t i = 0;
  if (n < window) {
    row = head.window.rows - head.window_count + n % head.window_count;
    query = QueryAt(head.window, row, h);
  } else {
    i = (n - window) % turn.count;
    row = turn.skip + static_cast<int>((head.prompt.rows - turn.skip) * i / turn.count);
    query = QueryAt(head.prompt, row, h);
  }
  float x = query[d];
  float y = paired ? query[d + half] : 0.0F;
  if (n >= window) {
    if (turn.cos != nullptr) {
      const int64_t angle = static_cast<int64_t>(turn.first + row) * half + d;
      Turn(turn.cos[angle], -turn.sin[angle], x, y);
    }
    if (turn.to_cos != nullptr) {
      Turn(turn.to_cos[i * half + d], turn.to_sin[i * half + d], x, y);
    }
  }
  float* to = call.scratch + head.scratch.queries + static_cast<int64_t>(n) * width;
  to[d] = x;
  if (paired) {
    to[d + half] = y;
  }
}

template <int kWidth>
struct QueryShared {
  ScoreTile<kWidth> queries;
  ScoreTile<kWidth> tokens;                  // keys, then values
  float weights[kTileEdge][kTileEdge + 16];  // 16 more: two rows of a warp fall on all 32 banks
};

// Four queries of a thread: their softmax and output so far, without the token of `best`.
template <int kWidth>
struct RowsSoFar {
  static constexpr int kColumns = kWidth / 16;  // of a thread: 4 x + 64 c, + 1, + 2, + 3
  float o[4][kColumns];
  float maximum[4];
  float sum[4];
  int best[4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      maximum[i] = -INFINITY;
      sum[i] = 0.0F;
      best[i] = -1;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        o[i][c] = 0.0F;
      }
    }
  }

  // A token with a larger logit is there: the best so far joins the others.
  template <bool kOutput>
  __device__ __forceinline__ void Replace(int i, float peak, int token, const CachedRows& values) {
    const float factor = Exp2(maximum[i] - peak);
    if (best[i] >= 0) {
      sum[i] += 1.0F;
    }
    sum[i] *= factor;
    if constexpr (kOutput) {
      const char* row = RowAt(values, max(best[i], 0));
      const float scale = ScaleOf(values.code, row);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = 4 * TileX() + 64 * (c / 4) + c % 4;
        if (best[i] >= 0 && column < values.width) {
          o[i][c] += DecodeElement(values, row, scale, column);
        }
        o[i][c] *= factor;
      }
    }
    maximum[i] = peak;
    best[i] = token;
  }

  // Logits of a tile, -infinity where the query sees nothing, become weights.
  template <bool kOutput>
  __device__ __forceinline__ void Weigh(int i, int first, const CachedRows& values, float (&s)[4]) {
    const float peak = WarpMax<15>(fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3])));
    if (Ballot(peak > maximum[i]) != 0) {
      int token = 0x7fffffff;
#pragma unroll
      for (int j = 3; j >= 0; --j) {
        token = s[j] == peak ? first + TileX() + 16 * j : token;
      }
#pragma unroll
      for (int mask = 8; mask > 0; mask /= 2) {
        token = min(token, ShuffleXor(token, mask));
      }
      if (peak > maximum[i]) {
        Replace<kOutput>(i, peak, token, values);
      }
    }
    // Before the first token that it sees, a query's weights are 0; a NaN stays one.
    const float zero = maximum[i] == -INFINITY ? 0.0F : maximum[i];
    float total = 0.0F;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      s[j] = first + TileX() + 16 * j == best[i] ? 0.0F : Exp2(s[j] - zero);
      total += s[j];
    }
    sum[i] += WarpSum<15>(total);
  }
};

// o += weights tokens
template <int kWidth>
__device__ __forceinline__ void AddWeighted(const QueryShared<kWidth>& shared,
                                            RowsSoFar<kWidth>& rows) {
  const int x = TileX();
  const int y = TileY();
  for (int j = 0; j < kTileEdge; j += 4) {
    float w[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Unpack<float>(Load16(&shared.weights[y + 16 * i][j]), w[i]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int c = 0; c < kWidth / 64; ++c) {
        float v[4];
        Unpack<float>(Load16(&shared.tokens[j + k][4 * x + 64 * c]), v);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int l = 0; l < 4; ++l) {
            rows.o[i][4 * c + l] += w[i][k] * v[l];
          }
        }
      }
    }
  }
}

template <int kWidth>
__device__ __forceinline__ void StorePartial(
    const ScoreHead& head, const RowsSoFar<kWidth>& rows, int first, int width, float* partials) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int n = first + TileY() + 16 * i;
    if (n >= head.queries) {
      continue;
    }
    float* partial = partials + static_cast<int64_t>(n) * (kPartialFloats + width);
    if (TileX() == 0) {
      partial[0] = rows.maximum[i];
      partial[1] = rows.sum[i];
      partial[2] = FloatOf(static_cast<uint32_t>(rows.best[i]));
    }
#pragma unroll
    for (int c = 0; c < RowsSoFar<kWidth>::kColumns; ++c) {
      const int column = 4 * TileX() + 64 * (c / 4) + c % 4;
      if (column < width) {
        partial[kPartialFloats + column] = rows.o[i][c];
      }
    }
  }
}

// A block for 64 queries of a head and a part of its tokens.
template <int kWidth, bool kOutput>
__global__ void __launch_bounds__(kScoreThreads, kScoreBlocksHint)
    QueryPassKernel(const ScoreCall call, int splits) {
  const ScoreHead& head = call.heads[blockIdx.y];
  const int split = static_cast<int>(blockIdx.x) % splits;
  const int first_query = static_cast<int>(blockIdx.x) / splits * kTileEdge;
  if (split >= head.splits || first_query >= head.queries) {
    return;
  }
  auto& shared = SharedMemory<QueryShared<kWidth>>();
  const int begin = split * head.split_tokens;
  const int end = min(begin + head.split_tokens, head.rows);
  const float scale = call.scale * kLog2E;
  LoadFloats<kWidth>(call.scratch + head.scratch.queries, head.keys.width, first_query,
                     head.queries, shared.queries);
  RowsSoFar<kWidth> rows;
  rows.Clear();
  for (int first = begin; first < end; first += kTileEdge) {
    SyncBlock();  // the tile before has been read
    LoadTokens<kWidth>(head.keys, first, end, shared.tokens);
    SyncBlock();  // keys are there
    float s[4][4];
    Products<kWidth>(shared.queries, shared.tokens, head.keys.width, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = first_query + TileY() + 16 * i;
      const int visible = n < head.queries ? min(end, VisibleTo(head, n)) : 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = first + TileX() + 16 * j < visible ? s[i][j] * scale : -INFINITY;
      }
      rows.template Weigh<kOutput>(i, first, head.values, s[i]);
    }
    if constexpr (kOutput) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          shared.weights[TileY() + 16 * i][TileX() + 16 * j] = s[i][j];
        }
      }
      SyncBlock();  // keys have been read
      LoadTokens<kWidth>(head.values, first, end, shared.tokens);
      SyncBlock();  // weights and values are there
      AddWeighted<kWidth>(shared, rows);
    }
  }
  const int width = kOutput ? head.values.width : 0;
  StorePartial<kWidth>(head, rows, first_query, width,
                       call.scratch + head.scratch.partials +
                           static_cast<int64_t>(split) * head.queries * (kPartialFloats + width));
}

template <int kWidth>
void LaunchQueryPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  LaunchShape shape(
      "QueryPassKernel",
      BlocksFor(plan.most_queries, kTileEdge) * static_cast<unsigned>(plan.most_splits),
      kScoreThreads, sizeof(QueryShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  if (plan.errors) {
    Launch(QueryPassKernel<kWidth, true>, shape, stream, call, plan.most_splits);
  } else {
    Launch(QueryPassKernel<kWidth, false>, shape, stream, call, plan.most_splits);
  }
}

}  // namespace

void GatherQueries(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  const int64_t pairs = int64_t{plan.most_queries} * ((kMostScoreWidth + 1) / 2);
  LaunchShape shape("GatherKernel", BlocksFor(pairs, kElementThreads), kElementThreads);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  Launch(GatherKernel, shape, stream, call);
}

void RunQueryPass(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchQueryPass<64>(plan, call, stream);
  } else {
    LaunchQueryPass<128>(plan, call, stream);
  }
}

}  // namespace kvc::cuda
