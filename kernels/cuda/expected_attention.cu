#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/expected_attention.h"
#include "kernels/cuda/expected_passes.h"
#include "kernels/cuda/score_sums.cuh"
#include "kernels/cuda/score_tile.cuh"

namespace kvc::cuda {
namespace {

__device__ __forceinline__ int TilesOf(const ExpectedHead& head) {
  return (head.rows + kTileEdge - 1) / kTileEdge;
}

template <int kWidth>
struct LogitShared {
  ScoreTile<kWidth> keys;
  ScoreTile<kWidth> square;  // 64 rows of S'
  float linear[kWidth];      // mu'
  float weights[kTileEdge];
  ReduceShared reduce;
};

// scale k . mu' + scale^2/2 k S' k^T of 64 keys: thread t < 64 gets that of key t.
template <int kWidth>
__device__ __forceinline__ float LogitOf(const ExpectedCall& call,
                                         const ExpectedHead& head,
                                         int h,
                                         LogitShared<kWidth>& shared) {
  const int width = head.keys.width;
  float form[4] = {};
  const float* square =
      call.scratch + head.scratch.square + static_cast<int64_t>(h) * width * width;
  for (int e = 0; e < width && call.covariance; e += kTileEdge) {
    SyncBlock();  // the rows before have been read
    LoadFloats<kWidth>(square, width, e, width, shared.square);
    SyncBlock();  // keys and these rows are there
    float c[4][4];
    Products<kWidth>(shared.square, shared.keys, width, c);
    AddForms<kWidth>(c, shared.keys, e, form);
  }
  const float quadratic = SumOverQueries(form, shared.reduce);  // keys and mu' are there, too
  float linear = 0.0F;
  for (int d = 0; d < width; ++d) {
    linear += shared.keys[threadIdx.x % kTileEdge][d] * shared.linear[d];
  }
  return call.scale * linear + 0.5F * call.scale * call.scale * quadratic;
}

// A block for 64 tokens and a query head: their logits, and the softmax of these alone.
template <int kWidth>
__global__ void __launch_bounds__(kScoreThreads, kScoreBlocksHint)
    ExpectedLogitKernel(const ExpectedCall call, int groups) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int tile = static_cast<int>(blockIdx.x) / groups;
  const int h = static_cast<int>(blockIdx.x) % groups;
  const int first = tile * kTileEdge;
  if (first >= head.rows || h >= head.group) {
    return;
  }
  auto& shared = SharedMemory<LogitShared<kWidth>>();
  const int width = head.keys.width;
  LoadTokens<kWidth>(head.keys, first, head.rows, shared.keys);
  for (int d = static_cast<int>(threadIdx.x); d < width; d += kScoreThreads) {
    shared.linear[d] = call.scratch[head.scratch.linear + h * width + d];
  }
  const float logit = LogitOf<kWidth>(call, head, h, shared);
  const int token = first + static_cast<int>(threadIdx.x);
  const bool counts = threadIdx.x < kTileEdge && token < head.rows && token >= head.sinks;
  if (threadIdx.x < kTileEdge) {
    shared.weights[threadIdx.x] = counts ? logit : -INFINITY;
  }
  if (counts) {
    call.scratch[head.scratch.logits + static_cast<int64_t>(h) * head.rows + token] = logit;
  }
  SyncBlock();  // all logits are there
  if (WarpIndex() == 0) {
    const float a = shared.weights[LaneIndex()];
    const float b = shared.weights[LaneIndex() + 32];
    const float peak = WarpMax(fmaxf(a, b));
    const float zero = peak == -INFINITY ? 0.0F : peak;
    const float sum = WarpSum(Exp2((a - zero) * kLog2E) + Exp2((b - zero) * kLog2E));
    if (LaneIndex() == 0) {
      float* to =
          call.scratch + head.scratch.tiles + 2 * (static_cast<int64_t>(h) * TilesOf(head) + tile);
      to[0] = peak;
      to[1] = sum;
    }
  }
}

// A warp for each query head: the softmax over all tiles.
__global__ void __launch_bounds__(32) ExpectedSoftmaxKernel(const ExpectedCall call) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int h = static_cast<int>(blockIdx.x);
  if (h >= head.group || head.rows == 0) {
    return;
  }
  const int count = TilesOf(head);
  const float* tiles = call.scratch + head.scratch.tiles + 2 * static_cast<int64_t>(h) * count;
  float peak = -INFINITY;
  for (int i = LaneIndex(); i < count; i += 32) {
    peak = fmaxf(peak, tiles[2 * i]);
  }
  peak = WarpMax(peak);
  float sum = 0.0F;
  for (int i = LaneIndex(); i < count; i += 32) {
    const float weight = tiles[2 * i] == -INFINITY ? 0.0F : Exp2((tiles[2 * i] - peak) * kLog2E);
    sum += weight * tiles[2 * i + 1];
  }
  sum = WarpSum(sum);
  if (LaneIndex() == 0) {
    float* to = call.scratch + head.scratch.softmax + 2 * h;
    to[0] = peak;
    to[1] = sum;
  }
}

constexpr int kFinishRows = 4 * kScoreWarps;  // of a block

// A warp for each of a few tokens.
template <int kWidth>
__global__ void __launch_bounds__(kScoreThreads) ExpectedScoreKernel(const ExpectedCall call) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kFinishRows;
  for (int row = first + WarpIndex(); row < min(first + kFinishRows, head.rows);
       row += kScoreWarps) {
    if (row < head.sinks) {
      continue;
    }
    float value[kWidth / 32];
    LoadRow(head.values, row, head.values.width, value);
    float square = 0.0F;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      square += value[c] * value[c];
    }
    const float norm = sqrtf(WarpSum(square));
    float attention = 0.0F;
    for (int h = 0; h < head.group; ++h) {
      const float logit =
          call.scratch[head.scratch.logits + static_cast<int64_t>(h) * head.rows + row];
      const float* softmax = call.scratch + head.scratch.softmax + 2 * h;
      attention += Exp2((logit - softmax[0]) * kLog2E) / softmax[1];
    }
    if (LaneIndex() == 0) {
      head.scores[row] = (attention / static_cast<float>(head.group) + call.epsilon) * norm;
    }
  }
}

template <int kWidth>
void LaunchLogits(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream) {
  LaunchShape shape("ExpectedLogitKernel",
                    BlocksFor(plan.most_rows, kTileEdge) * static_cast<unsigned>(plan.most_group),
                    kScoreThreads, sizeof(LogitShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  Launch(ExpectedLogitKernel<kWidth>, shape, stream, call, plan.most_group);
}

template <int kWidth>
void LaunchScores(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream) {
  LaunchShape shape("ExpectedScoreKernel", BlocksFor(plan.most_rows, kFinishRows), kScoreThreads);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  Launch(ExpectedScoreKernel<kWidth>, shape, stream, call);
}

}  // namespace

void FindExpectedLogits(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchLogits<64>(plan, call, stream);
  } else {
    LaunchLogits<128>(plan, call, stream);
  }
  LaunchShape shape("ExpectedSoftmaxKernel", static_cast<unsigned>(plan.most_group), 32);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  Launch(ExpectedSoftmaxKernel, shape, stream, call);
}

void FinishExpectedScores(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream) {
  if (plan.width == 64) {
    LaunchScores<64>(plan, call, stream);
  } else {
    LaunchScores<128>(plan, call, stream);
  }
}

void ExpectedScores(const ExpectedPlan& plan,
                    const ExpectedHead* heads,
                    float* scratch,
                    float scale,
                    float epsilon,
                    bool covariance,
                    StreamHandle stream) {
  if (plan.most_rows == 0) {
    return;
  }
  const ExpectedCall call = {heads, scratch, scale, epsilon, covariance};
  FindQueryStatistics(plan, call, stream);
  FindExpectedLogits(plan, call, stream);
  FinishExpectedScores(plan, call, stream);
}

}  // namespace kvc::cuda
