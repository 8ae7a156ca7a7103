#include "eval/compare/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"

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

// Sample means 1, 2 and 6; the mean over tokens is 16 / 5.
TEST(Statistics, ErrorOfAMeanIsThatOfItsSamples) {
  const std::vector<double> sums = {2.0, 2.0, 12.0};
  const std::vector<int64_t> counts = {2, 1, 2};
  const SampledMean mean = MeanOfSamples(sums, counts);
  EXPECT_DOUBLE_EQ(mean.mean, 3.2);
  EXPECT_NEAR(mean.standard_error, std::sqrt((2.2 * 2.2 + 1.2 * 1.2 + 2.8 * 2.8) / 2 / 3), 1e-12);
  EXPECT_EQ(MeanOfSamples(std::span(sums).first(1), std::span(counts).first(1)).standard_error,
            0.0);
}

TEST(Statistics, ArgMaxTakesTheFirst) {
  EXPECT_EQ(ArgMax(std::vector<float>{1.0F, 2.0F, 2.0F}), 1);
}

}  // namespace
}  // namespace kvc::eval
