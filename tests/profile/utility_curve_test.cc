#include "profile/utility_curve.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/cache/profile_file.h"

namespace kvc::profile {
namespace {

using Order = std::vector<int64_t>;

TEST(RankTokens, DescendingEarlierFirst) {
  const std::vector<float> scores = {9, 1, 3, 3, 2, 3, 9};
  EXPECT_EQ(RankTokens(scores, 1, 6), (Order{2, 3, 5, 4, 1}));
  EXPECT_TRUE(RankTokens(scores, 3, 3).empty());
  EXPECT_EQ(RankTokens(scores, 6, 7), Order{6});
}

std::vector<double> CurveOf(const std::vector<float>& importance, const Order& order) {
  std::vector<double> curve(kCurveIntervals + 1, 0.0);
  AddUtilityCurve(importance, order, curve);
  return curve;
}

// Importance of what falls out when the first `kept` tokens stay, a fraction of the next included.
double LostBruteForce(const std::vector<float>& importance, const Order& order, double kept) {
  double lost = 0.0;
  for (size_t m = 0; m < order.size(); ++m) {
    const double stays = std::clamp(kept - static_cast<double>(m), 0.0, 1.0);
    lost += (1.0 - stays) * importance[order[m]];
  }
  return lost;
}

TEST(AddUtilityCurve, EqualsBruteForce) {
  Rng rng(1);
  for (const int64_t count : {1, 2, 5, 127, 128, 129, 988}) {
    std::vector<float> importance;
    std::vector<float> scores;
    for (int64_t j = 0; j < count + 3; ++j) {
      importance.push_back(static_cast<float>(rng.NextDouble()));
      scores.push_back(static_cast<float>(rng.NextBelow(10)));
    }
    const Order order = RankTokens(scores, 2, count + 2);
    const std::vector<double> curve = CurveOf(importance, order);
    for (int64_t i = 0; i <= kCurveIntervals; ++i) {
      const double kept = static_cast<double>(i * count) / kCurveIntervals;
      ASSERT_NEAR(curve[i], LostBruteForce(importance, order, kept), 1e-9 * count)
          << "tokens " << count << " point " << i;
    }
    EXPECT_EQ(curve.back(), 0.0);
    EXPECT_TRUE(std::ranges::is_sorted(curve, std::ranges::greater()));
  }
}

TEST(AddUtilityCurve, AddsToWhatIsThere) {
  std::vector<double> curve(kCurveIntervals + 1, 1.0);
  AddUtilityCurve(std::vector<float>{4.0F}, Order{0}, curve);
  EXPECT_EQ(curve.front(), 5.0);
  EXPECT_EQ(curve[kCurveIntervals / 2], 3.0);
  EXPECT_EQ(curve.back(), 1.0);
}

TEST(AddUtilityCurve, NoTokens) {
  const std::vector<double> curve = CurveOf({1.0F, 2.0F}, {});
  EXPECT_EQ(curve, std::vector<double>(kCurveIntervals + 1, 0.0));
}

}  // namespace
}  // namespace kvc::profile
