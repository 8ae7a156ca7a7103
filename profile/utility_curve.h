#pragma once
// Utility curves [LUKV]: oracle importance lost when only the best tokens under some score are
// kept.

#include <cstdint>
#include <span>
#include <vector>

#include "core/cache/profile_file.h"

namespace kvc::profile {

// Points of a curve: its ends, and those between its intervals.
inline constexpr int64_t kCurvePoints = kCurveIntervals + 1;

// Returns the tokens `begin` .. `end` - 1 by descending score; of equal scores the earlier token is
// first.
[[nodiscard]] std::vector<int64_t> RankTokens(std::span<const float> scores,
                                              int64_t begin,
                                              int64_t end);

// Adds to `curve` [kCurvePoints] the importance lost when the share i / kCurveIntervals of
// `order` is kept, from its front; linear between whole tokens. Summed from the back in double, so
// that it never rises and ends in 0.
//   importance  of each token [T]; `order` indexes into it
void AddUtilityCurve(std::span<const float> importance,
                     std::span<const int64_t> order,
                     std::span<double> curve);

}  // namespace kvc::profile
