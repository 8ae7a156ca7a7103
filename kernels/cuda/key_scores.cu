#include <algorithm>
#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/key_scores.h"
#include "kernels/cuda/row_codec.cuh"

namespace kvc::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kNormRows = 4 * kWarps;         // of a block whose warps work alone
constexpr int kSumRows = 32 * kWarps;         // of a block that sums
constexpr int kColumns = kMostKeyWidth / 32;  // of a lane: l, l + 32, ...
// The least length that a vector counts as: a zero key has cosine 0 with everything.
constexpr float kSmallestNorm = 1e-12F;

// sum x_d y_d over the lanes.
__device__ __forceinline__ float WarpDot(const float (&x)[kColumns], const float (&y)[kColumns]) {
  float sum = 0.0F;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    sum += x[c] * y[c];
  }
  return WarpSum(sum);
}

// 1 / |x|; a NaN stays one.
__device__ __forceinline__ float InverseNorm(const float (&x)[kColumns]) {
  const float norm = sqrtf(WarpDot(x, x));
  return 1.0F / (norm < kSmallestNorm ? kSmallestNorm : norm);
}

// A warp for each of a few keys.
__global__ void __launch_bounds__(kThreads) KeyNormKernel(const KeyHead* heads) {
  const KeyHead& head = heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kNormRows;
  for (int row = first + WarpIndex(); row < min(first + kNormRows, head.rows); row += kWarps) {
    float key[kColumns];
    LoadRow(head.keys, row, head.keys.width, key);
    const float norm = sqrtf(WarpDot(key, key));
    if (LaneIndex() == 0) {
      head.scores[row] = -norm;
    }
  }
}

struct SumShared {
  double sums[kWarps][kMostKeyWidth];
};

// A block's sums of k / |k| over kSumRows keys, warp after warp.
__global__ void __launch_bounds__(kThreads) KeySumKernel(const KeyHead* heads, double* scratch) {
  const KeyHead& head = heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kSumRows;
  if (first >= head.rows) {
    return;
  }
  auto& shared = SharedMemory<SumShared>();
  double sum[kColumns] = {};
  for (int row = first + WarpIndex(); row < min(first + kSumRows, head.rows); row += kWarps) {
    float key[kColumns];
    LoadRow(head.keys, row, head.keys.width, key);
    const float inverse = InverseNorm(key);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      sum[c] += static_cast<double>(inverse * key[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    shared.sums[WarpIndex()][LaneIndex() + 32 * c] = sum[c];
  }
  SyncBlock();  // all warps' are there
  const int width = head.keys.width;
  double* to = scratch + head.scratch + static_cast<int64_t>(blockIdx.x) * width;
  for (int d = static_cast<int>(threadIdx.x); d < width; d += kThreads) {
    double total = 0.0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      total += shared.sums[w][d];
    }
    to[d] = total;
  }
}

// Where a head's mean key lies, behind the sums of its blocks.
__device__ __forceinline__ int64_t AnchorOf(const KeyHead& head) {
  return head.scratch +
         static_cast<int64_t>((head.rows + kSumRows - 1) / kSumRows) * head.keys.width;
}

// A thread for each column of a head: the mean over all blocks, rounded to float.
__global__ void __launch_bounds__(kMostKeyWidth)
    KeyMeanKernel(const KeyHead* heads, double* scratch) {
  const KeyHead& head = heads[blockIdx.x];
  const int d = static_cast<int>(threadIdx.x);
  if (head.rows == 0 || d >= head.keys.width) {
    return;
  }
  const double* sums = scratch + head.scratch + d;
  double total = 0.0;
  for (int first = 0; first < head.rows; first += kSumRows) {
    total += *sums;
    sums += head.keys.width;
  }
  scratch[AnchorOf(head) + d] = static_cast<float>(total / static_cast<double>(head.rows));
}

// A warp for each of a few keys.
__global__ void __launch_bounds__(kThreads)
    KeyDiffKernel(const KeyHead* heads, const double* scratch) {
  const KeyHead& head = heads[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kNormRows;
  if (first >= head.rows) {
    return;
  }
  float anchor[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int d = LaneIndex() + 32 * c;
    anchor[c] = d < head.keys.width ? static_cast<float>(scratch[AnchorOf(head) + d]) : 0.0F;
  }
  const float inverse_anchor = InverseNorm(anchor);
  for (int row = first + WarpIndex(); row < min(first + kNormRows, head.rows); row += kWarps) {
    float key[kColumns];
    LoadRow(head.keys, row, head.keys.width, key);
    const float inverse = InverseNorm(key);
    const float product = WarpDot(key, anchor);
    if (LaneIndex() == 0) {
      head.scores[row] = -product * inverse * inverse_anchor;
    }
  }
}

LaunchShape ShapeOf(const char* name, const KeyScorePlan& plan, int rows, size_t shared) {
  LaunchShape shape(name, BlocksFor(plan.most_rows, rows), kThreads, shared);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  return shape;
}

}  // namespace

KeyScorePlan PlanKeyScores(std::vector<KeyHead> heads) {
  KeyScorePlan plan;
  for (KeyHead& head : heads) {
    KVC_CHECK(head.rows >= 0 && head.keys.width >= 1, kBadShape,
              "key scores: expected rows of a width, got {} of {}", head.rows, head.keys.width);
    KVC_CHECK(head.keys.width <= kMostKeyWidth, kUnsupported,
              "key scores: expected a width of at most {}, got {}", kMostKeyWidth, head.keys.width);
    head.scratch = plan.scratch_doubles;
    plan.scratch_doubles +=
        (int64_t{head.rows} + kSumRows - 1) / kSumRows * head.keys.width + head.keys.width;
    plan.most_rows = std::max(plan.most_rows, head.rows);
  }
  plan.heads = std::move(heads);
  return plan;
}

void KeyNormScores(const KeyScorePlan& plan, const KeyHead* heads, StreamHandle stream) {
  if (plan.most_rows == 0) {
    return;
  }
  Launch(KeyNormKernel, ShapeOf("KeyNormKernel", plan, kNormRows, 0), stream, heads);
}

void KeyDiffScores(const KeyScorePlan& plan,
                   const KeyHead* heads,
                   double* scratch,
                   StreamHandle stream) {
  if (plan.most_rows == 0) {
    return;
  }
  Launch(KeySumKernel, ShapeOf("KeySumKernel", plan, kSumRows, sizeof(SumShared)), stream, heads,
         scratch);
  Launch(KeyMeanKernel,
         LaunchShape("KeyMeanKernel", static_cast<unsigned>(plan.heads.size()), kMostKeyWidth),
         stream, heads, scratch);
  Launch(KeyDiffKernel, ShapeOf("KeyDiffKernel", plan, kNormRows, 0), stream, heads, scratch);
}

}  // namespace kvc::cuda
