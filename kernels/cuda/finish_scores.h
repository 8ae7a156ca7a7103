#pragma once
// From sums of a layer's tokens (scores.h, key_scores.h, expected_attention.h) to the scores that
// rows are selected by (select.h), on the device: the twin of scorers::Scorer::Finish and, for
// scores that are added, of scorers::CombineHeads. Scores are those of the host to the bit, because
// every step is one rounding of the same two numbers. Tables are executed in one launch each;
// nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// The scores of one head,
//
//   s_j = max of float(sums_i f) over i = j - pool / 2 .. j + pool / 2,   f = weight / divisor,
//
// the last `window` tokens and those before them apart. All pointers are of the device.
struct SumFinish {
  const float* sums = nullptr;  // [rows]; null: s_j = j
  float* scores = nullptr;      // [rows], written; null: sums are checked alone
  // Takes the place of `weight` as 1 / *energy where it is given.
  const double* energy = nullptr;
  double weight = 1.0;  // above 0
  double divisor = 1.0;
  int32_t rows = 0;
  int32_t window = 0;     // at most rows
  int32_t pool = 1;       // odd
  int32_t unchecked = 0;  // first rows that may hold anything
  // Counts sums that are no finite numbers, and an energy that is not above 0. What such sums
  // become is no NaN.
  int32_t* faults = nullptr;
};

// Executes finishes [count] on the device, none of which has more than `most_rows` rows. Without a
// pool sums and scores may be the same.
void FinishScores(const SumFinish* finishes, int32_t count, int32_t most_rows, StreamHandle stream);

// The heads of a group: their scores, one head's behind another's [heads, rows], become their sum
// in the first [rows], where the first `pinned` rows get +infinity.
struct HeadsSum {
  float* scores = nullptr;
  int32_t rows = 0;
  int32_t heads = 0;
  int32_t pinned = 0;
};

// Executes sums [count] on the device likewise.
void SumHeads(const HeadsSum* sums, int32_t count, int32_t most_rows, StreamHandle stream);

}  // namespace kvc::cuda
