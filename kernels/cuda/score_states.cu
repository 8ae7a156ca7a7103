// The states of queries between the two passes: what the parts of the first one say together of
// each query's softmax sum, and of its output as the residual stream sees it.

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/score_passes.h"
#include "kernels/cuda/score_tile.cuh"

namespace kvc::cuda {
namespace {

// As kDominantAttention of scorers/output_change.cc.
constexpr float kDominant = 0.5F;
// Attention below this counts as none; its inverse is still a float.
constexpr float kNoAttention = 1e-30F;

template <int kWidth>
struct StateShared {
  float outputs[kScoreWarps][kWidth];
  float changes[kScoreWarps][kWidth];
};

// A query's softmax over all parts: the best token, and the sums over all others.
struct Merged {
  float maximum = -INFINITY;
  float sum = 0.0F;
  int best = -1;
};

// The parts of query n begin at `partial`, `stride` floats apart; their outputs are summed in o,
// lane l having the columns l, l + 32, ...
template <int kWidth, bool kOutput>
__device__ __forceinline__ Merged
MergeParts(const ScoreHead& head, const float* partial, int64_t stride, float (&o)[kWidth / 32]) {
  Merged merged;
  for (int k = 0; k < head.splits; ++k) {
    const float maximum = partial[k * stride];
    if (maximum > merged.maximum) {
      merged.maximum = maximum;
      merged.best = static_cast<int>(BitsOf(partial[k * stride + 2]));
    }
  }
  for (int k = 0; k < head.splits; ++k) {
    const float* part = partial + k * stride;
    const int best = static_cast<int>(BitsOf(part[2]));
    const float weight = part[0] == -INFINITY ? 0.0F : Exp2(part[0] - merged.maximum);
    const bool joins = best >= 0 && best != merged.best;
    merged.sum += weight * (part[1] + (joins ? 1.0F : 0.0F));
    if constexpr (kOutput) {
      float value[kWidth / 32] = {};
      if (joins) {
        LoadRow(head.values, best, head.values.width, value);
      }
#pragma unroll
      for (int c = 0; c < kWidth / 32; ++c) {
        const int column = LaneIndex() + 32 * c;
        if (column < head.values.width) {
          o[c] += weight * (part[kPartialFloats + column] + value[c]);
        }
      }
    }
  }
  return merged;
}

// y = x M for a row x in shared memory.
template <int kWidth>
__device__ __forceinline__ void MultiplyGram(const float (&x)[kWidth],
                                             const float* gram,
                                             int width,
                                             float (&y)[kWidth / 32]) {
  for (int e = 0; e < width; ++e) {
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      const int column = LaneIndex() + 32 * c;
      if (column < width) {
        y[c] += x[e] * gram[static_cast<int64_t>(e) * width + column];
      }
    }
  }
}

// Writes the row x M to `projected` and returns x M x^T.
template <int kWidth>
__device__ __forceinline__ float StoreProjected(const float (&x)[kWidth],
                                                const float* gram,
                                                int width,
                                                float* projected) {
  float y[kWidth / 32] = {};
  MultiplyGram<kWidth>(x, gram, width, y);
  float form = 0.0F;
#pragma unroll
  for (int c = 0; c < kWidth / 32; ++c) {
    const int column = LaneIndex() + 32 * c;
    if (column < width) {
      projected[column] = y[c];
      form += y[c] * x[column];
    }
  }
  return WarpSum(form);
}

// A warp for each query.
template <int kWidth, bool kOutput>
__global__ void __launch_bounds__(kScoreThreads) StateKernel(const ScoreCall call) {
  const ScoreHead& head = call.heads[blockIdx.y];
  const int n = static_cast<int>(blockIdx.x) * kScoreWarps + WarpIndex();
  if (n >= head.queries) {
    return;
  }
  const int width = kOutput ? head.values.width : 0;
  const int64_t stride = static_cast<int64_t>(head.queries) * (kPartialFloats + width);
  const float* partial =
      call.scratch + head.scratch.partials + static_cast<int64_t>(n) * (kPartialFloats + width);
  float o[kWidth / 32] = {};
  const Merged merged = MergeParts<kWidth, kOutput>(head, partial, stride, o);
  // 1, or NaN for a maximum that is infinite.
  const float own_weight = Exp2(merged.maximum - merged.maximum);
  const float inverse = 1.0F / (merged.sum + own_weight);
  QueryState state = {};
  state.maximum = merged.maximum;
  state.inverse = inverse;
  state.rest = merged.sum * inverse;
  const float attention = own_weight * inverse;
  state.dominant = attention > kDominant ? merged.best : -1;
  if constexpr (kOutput) {
    auto& shared = SharedMemory<StateShared<kWidth>>();
    auto& output = shared.outputs[WarpIndex()];
    auto& change = shared.changes[WarpIndex()];
    float value[kWidth / 32] = {};
    if (merged.best >= 0) {
      LoadRow(head.values, merged.best, width, value);
    }
    const float others = state.rest > kNoAttention ? 1.0F / merged.sum : 0.0F;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      output[LaneIndex() + 32 * c] = (o[c] + own_weight * value[c]) * inverse;
      change[LaneIndex() + 32 * c] = value[c] - o[c] * others;
    }
    SyncWarp();  // the rows are complete
    const float* gram = head.grams + static_cast<int64_t>(QueryHeadOf(head, n)) * width * width;
    const int64_t row = static_cast<int64_t>(n) * width;
    state.own =
        StoreProjected<kWidth>(output, gram, width, call.scratch + head.scratch.projected + row);
    if (state.dominant >= 0) {
      state.square =
          StoreProjected<kWidth>(change, gram, width, call.scratch + head.scratch.changed + row);
      const float square = state.square < 0.0F ? 0.0F : state.square;
      state.dominant_error = attention * attention * square;
    }
  }
  if (LaneIndex() == 0) {
    reinterpret_cast<QueryState*>(call.scratch + head.scratch.states)[n] = state;
  }
}

template <int kWidth>
void LaunchStates(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  LaunchShape shape("StateKernel", BlocksFor(plan.most_queries, kScoreWarps), kScoreThreads,
                    plan.errors ? sizeof(StateShared<kWidth>) : 0);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  if (plan.errors) {
    Launch(StateKernel<kWidth, true>, shape, stream, call);
  } else {
    Launch(StateKernel<kWidth, false>, shape, stream, call);
  }
}

}  // namespace

void FindQueryStates(const ScorePlan& plan, const ScoreCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchStates<64>(plan, call, stream);
  } else {
    LaunchStates<128>(plan, call, stream);
  }
}

}  // namespace kvc::cuda
