#include "profile/utility_curve.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/cache/profile_file.h"

namespace kvc::profile {

std::vector<int64_t> RankTokens(std::span<const float> scores, int64_t begin, int64_t end) {
  std::vector<int64_t> order(std::max<int64_t>(0, end - begin));
  std::iota(order.begin(), order.end(), begin);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  return order;
}

void AddUtilityCurve(std::span<const float> importance,
                     std::span<const int64_t> order,
                     std::span<double> curve) {
  KVC_CHECK(std::ssize(curve) == kCurveIntervals + 1, kInternal,
            "utility curve: expected {} points, got {}", kCurveIntervals + 1, curve.size());
  const int64_t count = std::ssize(order);
  std::vector<double> lost(count + 1, 0.0);  // lost[m]: with the first m tokens kept
  for (int64_t m = count - 1; m >= 0; --m) lost[m] = lost[m + 1] + importance[order[m]];
  for (int64_t i = 0; i <= kCurveIntervals; ++i) {
    const int64_t kept = i * count / kCurveIntervals;
    const int64_t rest = i * count % kCurveIntervals;
    const double share = static_cast<double>(rest) / static_cast<double>(kCurveIntervals);
    curve[i] += rest == 0 ? lost[kept] : lost[kept] + share * (lost[kept + 1] - lost[kept]);
  }
}

}  // namespace kvc::profile
