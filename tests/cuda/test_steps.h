#pragma once
// Steps of codes for tests.

#include <cmath>
#include <vector>

#include "core/base/row_format.h"

namespace kvc::cuda {

// Of `width` columns, no two neighbours alike: a code reaches 3 to 6. Empty where a format needs
// none.
inline std::vector<float> TestSteps(const RowFormat& format, int64_t width) {
  std::vector<float> steps;
  if (!NeedsSteps(format)) return steps;
  const double codes = std::pow(2.0, static_cast<double>(ElementBits(format)));
  for (int64_t i = 0; i < width; ++i) {
    steps.push_back(static_cast<float>((6.0 + static_cast<double>(i * 7 % 5)) / codes));
  }
  return steps;
}

// The steps as functions of the host take them.
inline CodeSteps StepsOrNull(const std::vector<float>& steps) {
  return steps.empty() ? nullptr : steps.data();
}

}  // namespace kvc::cuda
