#include "solver/isotonic.h"

#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::solver {
namespace {

// The fit of observation i by the formula of maxima and minima: the largest, over all that begin at
// or before i, of the least mean of a run that ends at or behind i.
double SlowFit(const std::vector<IsotonicBlock>& observations, size_t i) {
  double best = -std::numeric_limits<double>::infinity();
  for (size_t a = 0; a <= i; ++a) {
    double least = std::numeric_limits<double>::infinity();
    for (size_t b = i; b < observations.size(); ++b) {
      double sum = 0.0;
      double weight = 0.0;
      for (size_t j = a; j <= b; ++j) {
        sum += observations[j].y * observations[j].weight;
        weight += observations[j].weight;
      }
      least = std::min(least, sum / weight);
    }
    best = std::max(best, least);
  }
  return best;
}

std::vector<IsotonicBlock> RandomObservations(Rng& rng, int64_t count, double trend) {
  std::vector<IsotonicBlock> observations;
  double x = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    x += rng.NextDouble();
    observations.push_back(
        {x, trend * static_cast<double>(i) + rng.NextNormal(), 0.1 + rng.NextDouble()});
  }
  return observations;
}

TEST(FitIsotonic, EqualsTheFormulaOfMaximaAndMinima) {
  Rng rng(3);
  for (const double trend : {-0.5, 0.0, 0.2, 3.0}) {
    const std::vector<IsotonicBlock> observations = RandomObservations(rng, 40, trend);
    const std::vector<IsotonicBlock> blocks = FitIsotonic(observations);
    size_t block = 0;
    double left = blocks[0].weight;
    for (size_t i = 0; i < observations.size(); ++i) {
      if (left < 1e-9) left = blocks[++block].weight;
      EXPECT_NEAR(blocks[block].y, SlowFit(observations, i), 1e-12) << trend << " " << i;
      left -= observations[i].weight;
    }
    EXPECT_EQ(block + 1, blocks.size());
    EXPECT_NEAR(left, 0.0, 1e-9);
  }
}

TEST(FitIsotonic, BlocksRiseAndKeepTheMeans) {
  Rng rng(4);
  const std::vector<IsotonicBlock> observations = RandomObservations(rng, 200, 0.02);
  const std::vector<IsotonicBlock> blocks = FitIsotonic(observations);
  double sums[2][2] = {};  // of x and y, observed and fitted
  for (const IsotonicBlock& o : observations) {
    sums[0][0] += o.x * o.weight;
    sums[0][1] += o.y * o.weight;
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    sums[1][0] += blocks[i].x * blocks[i].weight;
    sums[1][1] += blocks[i].y * blocks[i].weight;
    if (i == 0) continue;
    EXPECT_GT(blocks[i].y, blocks[i - 1].y);
    EXPECT_GT(blocks[i].x, blocks[i - 1].x);
  }
  EXPECT_GT(blocks.size(), 2U);
  EXPECT_NEAR(sums[0][0], sums[1][0], 1e-9);
  EXPECT_NEAR(sums[0][1], sums[1][1], 1e-9);
}

TEST(FitIsotonic, RefusesWhatHasNoOrder) {
  EXPECT_TRUE(FitIsotonic({}).empty());
  const std::vector<IsotonicBlock> falling = {{2, 1, 1}, {1, 2, 1}};
  EXPECT_KVC_ERROR(static_cast<void>(FitIsotonic(falling)), kBadShape, "places that rise");
  const std::vector<IsotonicBlock> weightless = {{1, 1, 0}};
  EXPECT_KVC_ERROR(static_cast<void>(FitIsotonic(weightless)), kBadShape, "positive weights");
  const std::vector<IsotonicBlock> nan = {{1, std::numeric_limits<double>::quiet_NaN(), 1}};
  EXPECT_KVC_ERROR(static_cast<void>(FitIsotonic(nan)), kNumeric, "finite");
}

}  // namespace
}  // namespace kvc::solver
