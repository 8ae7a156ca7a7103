#include "profile/code_steps.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/row_format.h"
#include "core/cache/cache_bases.h"

namespace kvc::profile {
namespace {

constexpr float kLeastStep = 1e-30F;
constexpr float kRangeOf8Bits = 1.25F;
constexpr float kCandidateRatio = 0.93F;  // of a step to the one before: down to a twentieth

std::vector<float> LargestMagnitudes(ConstMatrixF rows) {
  std::vector<float> largest(static_cast<size_t>(rows.cols), 0.0F);
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t i = 0; i < rows.cols; ++i) {
      KVC_CHECK(std::isfinite(rows(t, i)), kNumeric,
                "steps of rows in few bits: expected finite numbers, got {}", rows(t, i));
      largest[i] = std::max(largest[i], std::abs(rows(t, i)));
    }
  }
  return largest;
}

// Adds the squared errors of a row's columns with these steps to `errors`.
void AddErrors(
    const float* row, int64_t width, float half_range, const float* steps, float* errors) {
  for (int64_t i = 0; i < width; ++i) {
    const float scaled = std::clamp(row[i] / steps[i], -half_range, half_range);
    // Truncation of what is not negative: the code, counted from 0.
    const auto stored = static_cast<float>(static_cast<int>(scaled + half_range));
    const float code = std::min(stored, 2.0F * half_range - 1.0F) - half_range + 0.5F;
    const float error = row[i] - code * steps[i];
    errors[i] += error * error;
  }
}

// The steps of least squared error for codes of `bits` bits.
std::vector<float> LeastError(ConstMatrixF rows, const std::vector<float>& largest, int64_t bits) {
  const auto half_range = static_cast<float>(1 << (bits - 1));
  std::vector<float> best(largest.size(), kLeastStep);
  std::vector<double> least(largest.size(), 0.0);
  std::vector<float> steps(largest.size());
  for (size_t i = 0; i < steps.size(); ++i)
    steps[i] = std::max(largest[i] / half_range, kLeastStep);
  for (int c = 0; c < kStepCandidates; ++c) {
    std::vector<float> errors(steps.size(), 0.0F);
    for (int64_t t = 0; t < rows.rows; ++t) {
      AddErrors(rows.row(t), rows.cols, half_range, steps.data(), errors.data());
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      if (c == 0 || errors[i] < least[i]) {
        least[i] = errors[i];
        best[i] = steps[i];
      }
      steps[i] = std::max(steps[i] * kCandidateRatio, kLeastStep);
    }
  }
  return best;
}

}  // namespace

std::vector<float> FitSteps(ConstMatrixF rows) {
  KVC_CHECK(rows.rows > 0, kBadShape, "steps of rows in few bits: expected rows, got none");
  const std::vector<float> largest = LargestMagnitudes(rows);
  std::vector<float> steps;
  for (const RowFormat& format : kStepFormats) {
    const int64_t bits = ElementBits(format);
    if (bits < 8) {
      const std::vector<float> best = LeastError(rows, largest, bits);
      steps.insert(steps.end(), best.begin(), best.end());
      continue;
    }
    for (const float magnitude : largest) {
      steps.push_back(std::max(kRangeOf8Bits * magnitude / 128.0F, kLeastStep));
    }
  }
  return steps;
}

}  // namespace kvc::profile
