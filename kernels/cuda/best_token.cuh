#pragma once
// The largest logit of a row, found by a block.

#include <cmath>

#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

constexpr int kSampleThreads = 256;
constexpr int kSampleWarps = kSampleThreads / 32;

// The most probable token of a row.
struct Best {
  float logit = -INFINITY;
  int id = 0x7fffffff;
  bool nan = false;  // anywhere in the row

  __device__ __forceinline__ void Take(float other, int other_id) {
    if (other > logit || (other == logit && other_id < id)) {
      logit = other;
      id = other_id;
    }
  }
};

struct BestShared {
  float logit[kSampleWarps];
  int id[kSampleWarps];
  int nan[kSampleWarps];
};

__device__ __forceinline__ Best FindBest(const float* logits, int count, BestShared& shared) {
  Best best;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kSampleThreads) {
    const float logit = logits[i];
    best.nan = best.nan || logit != logit;
    best.Take(logit, i);
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const float logit = ShuffleXor(best.logit, mask);
    const int id = ShuffleXor(best.id, mask);
    best.Take(logit, id);
  }
  const unsigned nans = Ballot(best.nan);
  if (LaneIndex() == 0) {
    shared.logit[WarpIndex()] = best.logit;
    shared.id[WarpIndex()] = best.id;
    shared.nan[WarpIndex()] = nans != 0 ? 1 : 0;
  }
  SyncBlock();  // every warp's best is there
  for (int w = 0; w < kSampleWarps; ++w) {
    best.Take(shared.logit[w], shared.id[w]);
    best.nan = best.nan || shared.nan[w] != 0;
  }
  return best;
}

}  // namespace kvc::cuda
