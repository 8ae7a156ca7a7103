#pragma once
// Steps of rows in few bits (core/base/row_format.h), and the errors that they leave: fitted to
// calibration rows, in the coordinates of the layer's bases, for each kv head, number of bits and
// column.
//
//   8 bits   1.25 x the largest magnitude is still in range: a number beyond the range costs more
//            than a coarser step
//   4, 2     the step of least squared error over the rows, among kStepCandidates geometric steps
//            downwards from the one that has every row in range
//
// One unit of error in a coordinate moves the output alike in whichever column it occurs, so the
// squared error is the loss up to a factor of the head.

#include <cstdint>
#include <vector>

#include "core/base/view.h"

namespace kvc::profile {

inline constexpr int kStepCandidates = 40;

// The most rows of a head that steps are fitted to; of more, every k-th.
inline constexpr int64_t kStepRows = 4096;

struct StepFit {
  std::vector<float> steps;   // for kStepFormats one after the other: [3, width], all > 0
  std::vector<float> errors;  // [4, width]: mean squared errors with these, and without any bits
};

// Fits the columns of `rows` [n, width], n >= 1. A column of zeros has the least step, which keeps
// zero as it is but for 1e-30. Throws kNumeric where a row is not finite. Single-threaded.
[[nodiscard]] StepFit FitSteps(ConstMatrixF rows);

}  // namespace kvc::profile
