#include "profile/tiered_error.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr int64_t kShare = 2;      // query heads of the kv head
constexpr int64_t kTokens = 13;    // T
constexpr int64_t kQueries = 3;    // the last tokens'
constexpr int64_t kFirst = 2;      // sinks
constexpr int64_t kEvictable = 6;  // behind them
constexpr int64_t kKeyWidth = 5;
constexpr int64_t kValueWidth = 4;
constexpr double kScale = 0.6;

class TieredErrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    queries_ = torch::randn({kShare, kQueries, kKeyWidth}) * 2;
    keys_ = torch::randn({kTokens, kKeyWidth}) * 2;
    values_ = torch::randn({kTokens, kValueWidth});
    const Tensor o = torch::randn({kShare, 7, kValueWidth});
    grams_ = torch::bmm(o.transpose(1, 2), o);
    weight_ = torch::rand({kQueries}, torch::kFloat64);
    tiers_.push_back({keys_.narrow(0, kFirst, kEvictable), values_.narrow(0, kFirst, kEvictable)});
    for (int t = 0; t < 2; ++t) {
      tiers_.push_back(
          {torch::randn({kEvictable, kKeyWidth}) * 3, torch::randn({kEvictable, kValueWidth})});
    }
  }

  [[nodiscard]] TieredError Make() const {
    return {{queries_, keys_, values_, grams_, weight_, kScale, {}}, kFirst, tiers_};
  }

  // Output [D_v] of query i of head h with the tokens' tiers, by the definition of attention.
  [[nodiscard]] std::vector<double> SlowOutput(int64_t h,
                                               int64_t i,
                                               const std::vector<uint8_t>& choice) const {
    std::vector<double> sum(kValueWidth, 0.0);
    double total = 0.0;
    double largest = -std::numeric_limits<double>::infinity();
    for (int64_t j = 0; j <= kTokens - kQueries + i; ++j) {
      Tensor key = keys_[j];
      Tensor value = values_[j];
      if (j >= kFirst && j < kFirst + kEvictable) {
        const uint8_t tier = choice[j - kFirst];
        if (tier == 0) continue;
        key = tiers_[tier - 1].keys[j - kFirst];
        value = tiers_[tier - 1].values[j - kFirst];
      }
      double logit = 0.0;
      for (int64_t d = 0; d < kKeyWidth; ++d) {
        logit += kScale * queries_[h][i][d].item<double>() * key[d].item<double>();
      }
      if (logit > largest) {
        const double scale = std::exp(largest - logit);
        for (double& x : sum) x *= scale;
        total *= scale;
        largest = logit;
      }
      logit -= largest;
      total += std::exp(logit);
      for (int64_t d = 0; d < kValueWidth; ++d) sum[d] += std::exp(logit) * value[d].item<double>();
    }
    for (double& x : sum) x /= total;
    return sum;
  }

  [[nodiscard]] double SlowError(const std::vector<uint8_t>& choice) const {
    double error = 0.0;
    for (int64_t h = 0; h < kShare; ++h) {
      for (int64_t i = 0; i < kQueries; ++i) {
        const std::vector<double> full = SlowOutput(h, i, std::vector<uint8_t>(kEvictable, 1));
        const std::vector<double> now = SlowOutput(h, i, choice);
        for (int64_t a = 0; a < kValueWidth; ++a) {
          for (int64_t b = 0; b < kValueWidth; ++b) {
            error += weight_[i].item<double>() * (now[a] - full[a]) *
                     grams_[h][a][b].item<double>() * (now[b] - full[b]);
          }
        }
      }
    }
    return error;
  }

  Tensor queries_, keys_, values_, grams_, weight_;
  std::vector<TierTensors> tiers_;
};

TEST_F(TieredErrorTest, MatchesTheDefinitionWhateverCameBefore) {
  TieredError error = Make();
  Rng rng(9);
  for (int round = 0; round < 20; ++round) {
    std::vector<uint8_t> choice;
    for (int64_t j = 0; j < kEvictable; ++j) {
      choice.push_back(static_cast<uint8_t>(rng.NextBelow(4)));
    }
    const double expected = SlowError(choice);
    EXPECT_NEAR(error.Measure(choice), expected, 1e-10 * (1.0 + expected)) << round;
  }
}

TEST_F(TieredErrorTest, FullWidthIsNoError) {
  TieredError error = Make();
  EXPECT_GT(error.Measure(std::vector<uint8_t>(kEvictable, 0)), 1e-3);
  EXPECT_NEAR(error.Measure(std::vector<uint8_t>(kEvictable, 1)), 0.0, 1e-20);
}

// Logits in the thousands: the double exponential of all tokens that are kept is 0 beside the
// dropped one, and that of all full rows beside a tier's.
TEST_F(TieredErrorTest, StrongAttentionStaysFinite) {
  for (const double strength : {1e2, 1e3, 1e4}) {
    SetUp();
    keys_[kFirst + 2] = queries_[0][1] * strength;
    keys_[kFirst + 4] = queries_[1][2] * strength;
    tiers_[0].keys = keys_.narrow(0, kFirst, kEvictable);
    tiers_[1].keys[3] = queries_[0][0] * strength;
    TieredError error = Make();
    Rng rng(10);
    for (int round = 0; round < 40; ++round) {
      std::vector<uint8_t> choice;
      for (int64_t j = 0; j < kEvictable; ++j) {
        choice.push_back(static_cast<uint8_t>(rng.NextBelow(4)));
      }
      const double expected = SlowError(choice);
      ASSERT_TRUE(std::isfinite(expected));
      EXPECT_NEAR(error.Measure(choice), expected, 1e-6 * (1.0 + expected))
          << strength << " " << round;
    }
  }
}

TEST_F(TieredErrorTest, NothingEvictable) {
  for (TierTensors& tier : tiers_) {
    tier = {tier.keys.narrow(0, 0, 0), tier.values.narrow(0, 0, 0)};
  }
  EXPECT_NEAR(Make().Measure({}), 0.0, 1e-20);
}

TEST_F(TieredErrorTest, RefusesNan) {
  tiers_[1].values[2][0] = std::numeric_limits<float>::quiet_NaN();
  TieredError error = Make();
  const std::vector<uint8_t> full(kEvictable, 1);
  EXPECT_NO_THROW(static_cast<void>(error.Measure(full)));
  EXPECT_KVC_ERROR(static_cast<void>(error.Measure(std::vector<uint8_t>(kEvictable, 2))), kNumeric,
                   "tiered error");
}

}  // namespace
}  // namespace kvc::profile
