#include "profile/loss_map_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/cache/loss_map.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

LossMaps MapOf(const std::vector<ScoredLoss>& tokens) {
  LossMapPointsOfGroup points = FitLossMap(tokens);
  LossMaps maps{std::move(points.scores), std::move(points.losses)};
  EXPECT_NO_THROW(CheckLossMaps(maps, "fit"));
  return maps;
}

// Scores over six orders of magnitude, whose mean loss is a known function of them.
double Expected(double score) { return 1e-5 + 0.3 * std::sqrt(score); }
std::vector<ScoredLoss> RandomTokens(int64_t count) {
  Rng rng(8);
  std::vector<ScoredLoss> tokens;
  for (int64_t i = 0; i < count; ++i) {
    const double score = std::pow(10.0, -6.0 * rng.NextDouble());
    // An exponential's mean is 1.
    tokens.push_back({score, -std::log(1.0 - rng.NextDouble()) * Expected(score)});
  }
  return tokens;
}

TEST(FitLossMap, FindsTheMeanLossAtEveryScore) {
  const LossMaps maps = MapOf(RandomTokens(40000));
  const LossMapView map(maps, 0);
  for (double score = 1e-5; score < 0.5; score *= 3.0) {
    EXPECT_NEAR(map(score), Expected(score), 0.2 * Expected(score)) << score;
  }
}

// Few tokens in few blocks: the isotonic fit itself, against the formula of maxima and minima.
TEST(FitLossMap, EqualsIsotonicRegressionOfNeighboursMeans) {
  std::vector<ScoredLoss> tokens = RandomTokens(16 * kLossMapTokens);
  const LossMaps maps = MapOf(tokens);
  std::ranges::sort(tokens, {}, &ScoredLoss::score);
  double x[16] = {}, y[16] = {};
  for (size_t i = 0; i < tokens.size(); ++i) {
    x[i / kLossMapTokens] += tokens[i].score / kLossMapTokens;
    y[i / kLossMapTokens] += tokens[i].loss / kLossMapTokens;
  }
  for (int i = 0; i < 16; ++i) {
    double best = 0.0;
    for (int a = 0; a <= i; ++a) {
      double least = std::numeric_limits<double>::infinity();
      for (int b = i; b < 16; ++b) {
        double sum = 0.0;
        for (int j = a; j <= b; ++j) sum += y[j];
        least = std::min(least, sum / (b - a + 1));
      }
      best = std::max(best, least);
    }
    const auto found = std::ranges::find_if(
        maps.losses, [&](float loss) { return std::abs(loss - best) < 1e-6 * best; });
    EXPECT_NE(found, maps.losses.end()) << "block of score " << x[i];
  }
}

TEST(FitLossMap, DoesNotDependOnTheOrderOfTokens) {
  std::vector<ScoredLoss> tokens = RandomTokens(500);
  const LossMaps one = MapOf(tokens);
  std::ranges::reverse(tokens);
  EXPECT_EQ(MapOf(tokens), one);
}

TEST(FitLossMap, IsTheIdentityWhereNothingIsKnown) {
  for (const std::vector<ScoredLoss>& tokens :
       {std::vector<ScoredLoss>{}, std::vector<ScoredLoss>(20, ScoredLoss{0.0, 3.0})}) {
    const LossMaps maps = MapOf(tokens);
    const LossMapView map(maps, 0);
    for (const double score : {0.0, 0.25, 1.0, 7.0}) EXPECT_EQ(map(score), score);
  }
}

TEST(FitLossMap, TakesEqualScoresTogether) {
  std::vector<ScoredLoss> tokens(30, {2.0, 1.0});
  for (size_t i = 0; i < 15; ++i) tokens[i].loss = 3.0;
  const LossMaps maps = MapOf(tokens);
  EXPECT_EQ(LossMapView(maps, 0)(2.0), 2.0);
}

TEST(FitLossMap, RefusesNan) {
  std::vector<ScoredLoss> tokens(9, {1.0, 1.0});
  tokens[4].loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_KVC_ERROR(static_cast<void>(FitLossMap(tokens)), kNumeric, "finite");
}

}  // namespace
}  // namespace kvc::profile
