#include "eval/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"

namespace kvc::eval {
namespace {

TEST(Statistics, LogSumExpDoesNotOverflow) {
  const std::vector<float> logits = {1000.0F, 1000.0F};
  EXPECT_NEAR(LogSumExp(logits), 1000.0 + std::log(2.0), 1e-9);
}

TEST(Statistics, LikelihoodOfUniformLogits) {
  const std::vector<float> logits(10, 3.0F);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 4), std::log(10.0), 1e-9);
}

// p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2).
TEST(Statistics, DivergenceOfTwoCoins) {
  const std::vector<float> p = {std::log(3.0F), 0.0F};
  const std::vector<float> q = {5.0F, 5.0F};
  EXPECT_NEAR(KlDivergence(p, q), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-6);
  EXPECT_EQ(KlDivergence(p, p), 0.0);
}

TEST(Statistics, NanIsRefused) {
  const std::vector<float> bad = {0.0F, std::numeric_limits<float>::quiet_NaN()};
  const std::vector<float> good = {0.0F, 1.0F};
  EXPECT_THROW((void)NegativeLogLikelihood(bad, 0), Error);
  EXPECT_THROW((void)KlDivergence(good, bad), Error);
  EXPECT_THROW((void)KlDivergence(bad, good), Error);
}

TEST(Statistics, QuantileIsAnElement) {
  std::vector<double> values = {4.0, 1.0, 3.0, 2.0};
  EXPECT_EQ(Quantile(values, 0.5), 2.0);
  EXPECT_EQ(Quantile(values, 0.51), 3.0);
  EXPECT_EQ(Quantile(values, 0.999), 4.0);
  EXPECT_EQ(Quantile(values, 1e-9), 1.0);
  std::vector<double> none;
  EXPECT_THROW((void)Quantile(none, 0.5), Error);
}

TEST(Statistics, ArgMaxTakesTheFirst) {
  EXPECT_EQ(ArgMax(std::vector<float>{1.0F, 2.0F, 2.0F}), 1);
}

}  // namespace
}  // namespace kvc::eval
