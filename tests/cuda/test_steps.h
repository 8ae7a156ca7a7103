#pragma once
// Steps of codes for tests, on the host and on the device.

#include <cmath>
#include <vector>

#include "core/base/row_format.h"
#include "kernels/cuda/cached_rows.h"
#include "tests/cuda/device_array.h"

namespace kvc::cuda {

// Mixtures of 1 and 6 bits on average.
inline constexpr RowFormat kRowsFew = MixedRows(4);
inline constexpr RowFormat kRowsMany = MixedRows(24);

// How rows of a format are coded; nothing where the format has no steps. No two neighbouring
// columns are alike, and a code reaches 3 to 6. A mixture has more columns in more bits as its rate
// is higher; from 24 columns on some have none.
class TestCodes {
 public:
  TestCodes(const RowFormat& format, int64_t width)
      : format_(format), width_(width), steps_(StepsOf(format, width)), device_(steps_) {}

  // As functions of the host take them.
  [[nodiscard]] CodeSteps host() const {
    if (steps_.empty()) return nullptr;
    return IsMixed(format_) ? CodeSteps(steps_.data(), width_, Ends()) : CodeSteps(steps_.data());
  }
  void Set(CachedRows& rows) const {
    if (!steps_.empty()) SetSteps(host(), device_.data(), rows);
  }
  // Bits of a column, 0 for none, and its step.
  [[nodiscard]] int64_t BitsOf(int64_t column) const {
    if (!IsMixed(format_)) return ElementBits(format_);
    for (size_t run = 0; run < kCodeBits.size(); ++run) {
      if (column < Ends()[run]) return kCodeBits[run];
    }
    return 0;
  }
  [[nodiscard]] double StepOf(int64_t column) const {
    const int64_t run = BitsOf(column) == 8 ? 0 : BitsOf(column) == 4 ? 1 : 2;
    return steps_[static_cast<size_t>(column + (IsMixed(format_) ? run * width_ : 0))];
  }

 private:
  static std::vector<float> StepsOf(const RowFormat& format, int64_t width) {
    std::vector<float> steps;
    if (!NeedsSteps(format)) return steps;
    for (const int32_t bits : kCodeBits) {
      if (!IsMixed(format) && bits != ElementBits(format)) continue;
      for (int64_t i = 0; i < width; ++i) {
        steps.push_back(static_cast<float>((6.0 + static_cast<double>(i * 7 % 5)) / (1 << bits)));
      }
    }
    return steps;
  }
  [[nodiscard]] RunEnds Ends() const {
    const auto blocks = static_cast<int32_t>((width_ + kColumnBlock - 1) / kColumnBlock);
    const int32_t eight = blocks * format_.rate / 64;
    const int32_t four = eight + (blocks + 2) / 4;
    const int32_t two = four + (blocks + 3) / 4;
    return {8 * eight, 8 * four, 8 * two};
  }

  RowFormat format_;
  int64_t width_;
  std::vector<float> steps_;  // [width], or [3, width] of a mixture
  DeviceArray<float> device_;
};

}  // namespace kvc::cuda
