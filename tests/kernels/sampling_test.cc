#include "kernels/sampling.h"

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::map<int32_t, int64_t> Draw(const std::vector<float>& logits,
                                const SamplingOptions& options,
                                int64_t times) {
  Rng rng(42);
  std::map<int32_t, int64_t> counts;
  for (int64_t i = 0; i < times; ++i) {
    ++counts[SampleToken(logits, options, rng)];
  }
  return counts;
}

TEST(SampleToken, GreedyTakesTheLowestIdOfTies) {
  Rng rng(1);
  EXPECT_EQ(SampleToken(std::vector<float>{1.0F, 3.0F, 3.0F, 2.0F}, {}, rng), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{-kInf, -kInf}, {}, rng), 0);
  EXPECT_EQ(SampleToken(std::vector<float>{0.0F, kInf}, {}, rng), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{5.0F}, {}, rng), 0);
  EXPECT_EQ(rng.NextU64(), Rng(1).NextU64()) << "greedy decoding drew a random number";
}

// Counts of n draws with probability p: within 5 standard deviations.
TEST(SampleToken, FollowsTheSoftmax) {
  const std::vector<float> logits = {0.0F, 1.0F, -1.0F, 2.0F, -kInf};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    constexpr int64_t kTimes = 20000;
    auto counts = Draw(logits, {temperature, 0, 1.0}, kTimes);
    double total = 0.0;
    for (const float logit : logits) {
      total += std::exp(logit / temperature);
    }
    for (size_t id = 0; id < logits.size(); ++id) {
      const double p = std::exp(logits[id] / temperature) / total;
      const double expected = p * kTimes;
      const double bound = 5.0 * std::sqrt(expected * (1.0 - p));
      EXPECT_LE(std::abs(static_cast<double>(counts[static_cast<int32_t>(id)]) - expected), bound)
          << id << " at " << temperature;
    }
  }
}

TEST(SampleToken, KeepsTheMostProbable) {
  const std::vector<float> logits = {0.0F, 1.0F, 1.0F, 1.0F, -2.0F};
  EXPECT_EQ(Draw(logits, {1.0, 2, 1.0}, 500).size(), 2U);
  EXPECT_EQ(Draw(logits, {1.0, 2, 1.0}, 500).count(3), 0U) << "of equal logits, lower ids first";
  EXPECT_EQ(Draw(logits, {1.0, 99, 1.0}, 5000).size(), 5U);
  EXPECT_EQ(Draw(logits, {1.0, 1, 1.0}, 50).begin()->first, 1);
}

TEST(SampleToken, KeepsTheSmallestSetWithTheMass) {
  // probabilities 0.5, 0.3, 0.2
  const std::vector<float> logits = {std::log(0.3F), std::log(0.5F), std::log(0.2F)};
  EXPECT_EQ(Draw(logits, {1.0, 0, 0.49}, 300).size(), 1U);
  EXPECT_EQ(Draw(logits, {1.0, 0, 0.55}, 300).size(), 2U);
  EXPECT_EQ(Draw(logits, {1.0, 0, 0.79}, 300).count(2), 0U);
  EXPECT_EQ(Draw(logits, {1.0, 0, 0.85}, 300).size(), 3U);
  EXPECT_EQ(Draw(logits, {1.0, 0, 0.0}, 300).size(), 1U) << "one token always stays";
}

TEST(SampleToken, TheSeedDecides) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(i % 37) * 0.1F;
  }
  const SamplingOptions options{0.9, 50, 0.95};
  Rng a(7);
  Rng b(7);
  Rng c(8);
  std::vector<int32_t> from_a;
  std::vector<int32_t> from_b;
  std::vector<int32_t> from_c;
  for (int i = 0; i < 20; ++i) {
    from_a.push_back(SampleToken(logits, options, a));
    from_b.push_back(SampleToken(logits, options, b));
    from_c.push_back(SampleToken(logits, options, c));
  }
  EXPECT_EQ(from_a, from_b);
  EXPECT_NE(from_a, from_c);
}

TEST(SampleToken, RefusesNaNAndNothing) {
  Rng rng(1);
  for (const double temperature : {0.0, 1.0}) {
    const std::vector<float> logits = {1.0F, std::nanf(""), 2.0F};
    EXPECT_KVC_ERROR((void)SampleToken(logits, {temperature, 0, 1.0}, rng), kNumeric, "got NaN");
  }
  EXPECT_KVC_ERROR((void)SampleToken({}, {}, rng), kBadShape, "at least one logit");
}

}  // namespace
}  // namespace kvc::kernels
