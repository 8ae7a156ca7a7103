// A thread for each token: it pools before it scales, which is the same because scaling keeps the
// order, and checks its own sum.

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/finish_scores.h"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int RowOfThread() {
  return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
}

// The largest sum about a row, on its side of where the window begins.
__device__ __forceinline__ float LargestAbout(const SumFinish& in, int row) {
  const int split = in.rows - in.window;
  const int begin = max(row < split ? 0 : split, row - in.pool / 2);
  const int end = min(row < split ? split : in.rows, row + in.pool / 2 + 1);
  float largest = in.sums[row];
  for (int i = begin; i < end; ++i) {
    largest = in.sums[i] > largest ? in.sums[i] : largest;
  }
  return largest;
}

// A block for 256 tokens of a head.
__global__ void __launch_bounds__(kThreads) FinishScoresKernel(const SumFinish* finishes) {
  const SumFinish in = finishes[blockIdx.y];
  const int row = RowOfThread();
  if (row >= in.rows) {
    return;
  }
  if (in.sums == nullptr) {
    in.scores[row] = static_cast<float>(row);
    return;
  }
  const double base = in.energy != nullptr ? 1.0 / *in.energy : in.weight;
  const bool bad_base = !(base > 0.0) || !(base < INFINITY);
  const bool checked = row >= in.unchecked;
  const bool bad = checked && !(fabsf(in.sums[row]) < INFINITY);
  if (bad || (bad_base && row == 0)) {
    AtomicAdd(in.faults, 1);
  }
  if (in.scores == nullptr) {
    return;
  }
  const double scaled = static_cast<double>(LargestAbout(in, row)) * (base / in.divisor);
  in.scores[row] = scaled == scaled ? static_cast<float>(scaled) : 0.0F;
}

// A block for 256 tokens of a group.
__global__ void __launch_bounds__(kThreads) SumHeadsKernel(const HeadsSum* sums) {
  const HeadsSum in = sums[blockIdx.y];
  const int row = RowOfThread();
  if (row >= in.rows) {
    return;
  }
  float sum = in.scores[row];
  for (int head = 1; head < in.heads; ++head) {
    sum += in.scores[static_cast<int64_t>(head) * in.rows + row];
  }
  in.scores[row] = row < in.pinned ? INFINITY : sum;
}

// Blocks for a table of `count` entries.
LaunchShape ShapeFor(const char* name, int32_t count, int32_t most_rows) {
  LaunchShape shape(name, BlocksFor(most_rows, kThreads), kThreads);
  shape.blocks_y = BlocksFor(count, 1);
  return shape;
}

}  // namespace

void FinishScores(const SumFinish* finishes,
                  int32_t count,
                  int32_t most_rows,
                  StreamHandle stream) {
  if (count == 0 || most_rows == 0) {
    return;
  }
  Launch(FinishScoresKernel, ShapeFor("FinishScoresKernel", count, most_rows), stream, finishes);
}

void SumHeads(const HeadsSum* sums, int32_t count, int32_t most_rows, StreamHandle stream) {
  if (count == 0 || most_rows == 0) {
    return;
  }
  Launch(SumHeadsKernel, ShapeFor("SumHeadsKernel", count, most_rows), stream, sums);
}

}  // namespace kvc::cuda
