#include "profile/code_steps.h"

#include <algorithm>
#include <cmath>
#include <utility>

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

// Steps [width] and their squared errors, summed over the rows.
struct Candidate {
  std::vector<float> steps;
  std::vector<float> errors;
};

Candidate Measured(ConstMatrixF rows, std::vector<float> steps, int64_t bits) {
  const auto half_range = static_cast<float>(1 << (bits - 1));
  std::vector<float> errors(steps.size(), 0.0F);
  for (int64_t t = 0; t < rows.rows; ++t) {
    AddErrors(rows.row(t), rows.cols, half_range, steps.data(), errors.data());
  }
  return {std::move(steps), std::move(errors)};
}

// The steps with which `range` times the largest magnitude is still in range.
std::vector<float> InRange(const std::vector<float>& largest, int64_t bits, float range) {
  const auto half_range = static_cast<float>(1 << (bits - 1));
  std::vector<float> steps;
  steps.reserve(largest.size());
  for (const float magnitude : largest) {
    steps.push_back(std::max(range * magnitude / half_range, kLeastStep));
  }
  return steps;
}

// The steps of least squared error for codes of `bits` bits.
Candidate LeastError(ConstMatrixF rows, const std::vector<float>& largest, int64_t bits) {
  Candidate best = Measured(rows, InRange(largest, bits, 1.0F), bits);
  std::vector<float> steps = best.steps;
  for (int c = 1; c < kStepCandidates; ++c) {
    for (float& step : steps) step = std::max(step * kCandidateRatio, kLeastStep);
    const Candidate next = Measured(rows, steps, bits);
    for (size_t i = 0; i < steps.size(); ++i) {
      if (next.errors[i] >= best.errors[i]) continue;
      best.errors[i] = next.errors[i];
      best.steps[i] = next.steps[i];
    }
  }
  return best;
}

}  // namespace

StepFit FitSteps(ConstMatrixF rows) {
  KVC_CHECK(rows.rows > 0, kBadShape, "steps of rows in few bits: expected rows, got none");
  const std::vector<float> largest = LargestMagnitudes(rows);
  StepFit fit;
  const auto add_errors = [&](const std::vector<float>& sums) {
    for (const float sum : sums) fit.errors.push_back(sum / static_cast<float>(rows.rows));
  };
  for (const RowFormat& format : kStepFormats) {
    const int64_t bits = ElementBits(format);
    const Candidate best = bits < 8 ? LeastError(rows, largest, bits)
                                    : Measured(rows, InRange(largest, bits, kRangeOf8Bits), bits);
    fit.steps.insert(fit.steps.end(), best.steps.begin(), best.steps.end());
    add_errors(best.errors);
  }
  std::vector<float> squares(largest.size(), 0.0F);
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t i = 0; i < rows.cols; ++i) squares[i] += rows(t, i) * rows(t, i);
  }
  add_errors(squares);
  return fit;
}

}  // namespace kvc::profile
