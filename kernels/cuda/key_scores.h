#pragma once
// Scores of cached tokens from their keys alone, for all kv heads of a layer on the device: the
// twins of scorers/knorm.cc and scorers/keydiff.cc. Nothing waits for the stream. NaN and infinity
// reach the scores.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int32_t kMostKeyWidth = 256;

struct KeyHead {
  CachedRows keys;  // [rows, D_k]
  int32_t rows = 0;
  float* scores = nullptr;  // [rows]

  int64_t scratch = 0;  // filled by PlanKeyScores: doubles before this head's
};

struct KeyScorePlan {
  std::vector<KeyHead> heads;   // to be copied to the device as they are
  int64_t scratch_doubles = 0;  // of KeyDiffScores; KeyNormScores takes none
  int32_t most_rows = 0;
};

// Throws kBadShape for negative rows and widths below 1, kUnsupported for keys wider than
// kMostKeyWidth.
[[nodiscard]] KeyScorePlan PlanKeyScores(std::vector<KeyHead> heads);

// s_j = -|k_j|. `heads`: plan.heads on the device.
void KeyNormScores(const KeyScorePlan& plan, const KeyHead* heads, StreamHandle stream);
// s_j = -cos(k_j, mean of k_i / |k_i|), the mean summed in double. scratch [plan.scratch_doubles].
void KeyDiffScores(const KeyScorePlan& plan,
                   const KeyHead* heads,
                   double* scratch,
                   StreamHandle stream);

}  // namespace kvc::cuda
