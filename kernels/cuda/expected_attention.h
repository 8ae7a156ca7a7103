#pragma once
// Scores by expected attention for all kv heads of a layer on the device: the twin of
// scorers/expected_attention.cc. For each query head the mean mu and the covariance S of the
// prompt's queries before their rotation are turned by a mean rotation Rbar, and
//
//   l_j = scale k_j . mu' + scale^2/2 k_j S' k_j^T,   s_j = (mean_h softmax_j(l_j) + eps) |v_j|
//
// for the tokens behind the sinks. Nothing waits for the stream. NaN and infinity reach the scores.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/scores.h"

namespace kvc::cuda {

// Where a head's parts of the scratch memory begin, in floats, all multiples of 4.
struct ExpectedScratch {
  int64_t sums = 0;      // of queries: doubles [splits, group, D_k]
  int64_t means = 0;     // [group, D_k], before rotation
  int64_t products = 0;  // of queries without their mean [splits, group, D_k, D_k]
  int64_t linear = 0;    // mu' [group, D_k]
  int64_t square = 0;    // S' [group, D_k, D_k]
  int64_t logits = 0;    // [group, rows]
  int64_t tiles = 0;     // maximum and sum of weights [group, tiles of 64 tokens, 2]
  int64_t softmax = 0;   // of all tiles [group, 2]
};

struct ExpectedHead {
  CachedRows keys;    // [rows, D_k]
  CachedRows values;  // [rows, D]
  int32_t rows = 0;   // T
  int32_t group = 0;  // query heads
  int32_t sinks = 0;  // tokens without a score: 0 .. rows - 1
  QueryRows prompt;   // those of the sinks left out by the caller: `first` is behind them
  // Taken back from position first_position + t; null: queries have no rotation.
  const float* cos = nullptr;  // [positions, D_k / 2]
  const float* sin = nullptr;
  int32_t first_position = 0;
  const float* mean_cos = nullptr;  // Rbar [D_k / 2]; null: identity
  const float* mean_sin = nullptr;
  float* scores = nullptr;  // [rows]; those of sinks are not written

  // Filled by PlanExpected.
  int32_t splits = 0;  // parts of the queries
  int32_t split_queries = 0;
  ExpectedScratch scratch;
};

struct ExpectedPlan {
  std::vector<ExpectedHead> heads;  // to be copied to the device as they are
  int64_t scratch_floats = 0;
  int32_t most_rows = 0;
  int32_t most_splits = 0;
  int32_t most_group = 0;
  int32_t width = 0;  // 64 or 128
};

// Throws kBadShape and kUnsupported as PlanScores does.
[[nodiscard]] ExpectedPlan PlanExpected(std::vector<ExpectedHead> heads);

// `heads`: plan.heads on the device; scratch [plan.scratch_floats], 16-byte aligned.
void ExpectedScores(const ExpectedPlan& plan,
                    const ExpectedHead* heads,
                    float* scratch,
                    float scale,
                    float epsilon,
                    bool covariance,
                    StreamHandle stream);

}  // namespace kvc::cuda
