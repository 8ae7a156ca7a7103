#include "profile/curve_collector.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/profile/collector_case.h"

namespace kvc::profile {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace)

// Importance [context] of a kv head's tokens, by the definition in profile/oracle.h.
Row SlowImportance(const TestWindow& window,
                   const Rows& o,
                   int64_t kv_head,
                   const ProfileOptions& options) {
  double total = 0.0;
  std::vector<Row> norms;  // [H][context]
  for (int64_t h = 0; h < kHeads; ++h) {
    norms.emplace_back();
    for (int64_t j = 0; j < options.context; ++j) {
      norms.back().push_back(ProjectedNorm(o, h, window.values[h / kShare][j]));
      total += norms.back().back();
    }
  }
  Row importance(options.context, 0.0);
  for (int64_t h = kv_head * kShare; h < (kv_head + 1) * kShare; ++h) {
    for (int64_t t = options.context; t < options.context + options.horizon; ++t) {
      const Row attention = Attention(window, h, t, RowsOf(window, kv_head));
      for (int64_t j = 0; j < options.context; ++j) {
        importance[j] = std::max(importance[j], attention[j] * norms[h][j] / total);
      }
    }
  }
  return importance;
}

// The evictable tokens by descending score.
std::vector<int64_t> SlowOrder(const Row& scores, const ProfileOptions& options) {
  std::vector<int64_t> order(options.context - options.window - options.sinks);
  std::iota(order.begin(), order.end(), options.sinks);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  return order;
}

// Adds the curves of lost importance and of the output's error for an order of the tokens.
void AddSlowCurves(const TestWindow& window,
                   const Rows& o,
                   int64_t kv_head,
                   const std::vector<int64_t>& order,
                   const ProfileOptions& options,
                   double* curve,
                   double* error) {
  const Row importance = SlowImportance(window, o, kv_head, options);
  for (int64_t point = 0; point < kPoints; ++point) {
    const double kept = double(point) * double(order.size()) / kCurveIntervals;
    std::vector<CachedRow> rows = RowsOf(window, kv_head);
    for (size_t m = 0; m < order.size(); ++m) {
      curve[point] += (1.0 - std::clamp(kept - double(m), 0.0, 1.0)) * importance[order[m]];
      if (double(m) >= std::floor(kept + 0.5)) rows[order[m]].present = false;
    }
    error[point] += SlowError(window, o, kv_head, options, rows);
  }
}

// Scores [context] of the key norms: in a group of several heads each head's share of its sum.
Row SlowKnorm(const TestWindow& window,
              int64_t first,
              int64_t count,
              const ProfileOptions& options) {
  Row scores(options.context, 0.0);
  for (int64_t g = first; g < first + count; ++g) {
    Row norms;
    for (int64_t j = 0; j < options.context; ++j) {
      const Row& key = window.keys[g][j];
      norms.push_back(std::sqrt(std::inner_product(key.begin(), key.end(), key.begin(), 0.0)));
    }
    const double sum = std::accumulate(norms.begin(), norms.end(), 0.0);
    for (int64_t j = 0; j < options.context; ++j) scores[j] -= norms[j] / sum;
  }
  return scores;
}

class CurveCollectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(11);
    options_.scorers = {ScorerKind::kKnorm};
    for (int w = 0; w < 2; ++w) windows_.push_back(RandomWindow(options_));
    weights_.o = torch::randn({kModelWidth, kHeads * kWidth});
    o_ = RowsOfTensor(weights_.o);
  }

  // Collects both windows at layer 1, and compares with the definition where groups of
  // `group_heads` kv heads keep the same tokens.
  void ExpectSlowCurves(const ModelConfig& config, int64_t group_heads) {
    ProfileSums sums;
    CurveCollector collector(config, options_, sums);
    for (const TestWindow& window : windows_) {
      collector.Visit(1, window.taps, weights_, window.energy);
    }
    std::map<std::string, std::vector<double>> slow;
    const std::string knorm = ToString(ScorerSpec(ScorerKind::kKnorm));
    for (const std::string& name : {knorm, std::string(kOracleName)}) {
      for (const std::string& sum : {CurveSum(name), ErrorSum(name)}) {
        slow[sum].assign(2 * kKvHeads * kPoints, 0.0);
      }
      for (const TestWindow& window : windows_) {
        for (int64_t g = 0; g < kKvHeads; ++g) {
          const int64_t first = g / group_heads * group_heads;
          Row scores = SlowKnorm(window, first, group_heads, options_);
          if (name == kOracleName) {
            scores.assign(options_.context, 0.0);
            for (int64_t i = first; i < first + group_heads; ++i) {
              const Row more = SlowImportance(window, o_, i, options_);
              for (size_t j = 0; j < scores.size(); ++j) scores[j] += more[j];
            }
          }
          const int64_t at = (kKvHeads + g) * kPoints;  // layer 1
          AddSlowCurves(window, o_, g, SlowOrder(scores, options_), options_,
                        &slow[CurveSum(name)][at], &slow[ErrorSum(name)][at]);
        }
      }
    }
    ASSERT_EQ(sums.size(), slow.size());
    for (const auto& [name, expected] : slow) {
      const std::vector<double>& actual = sums.at(name);
      ASSERT_EQ(actual.size(), expected.size()) << name;
      for (size_t i = 0; i < expected.size(); ++i) {
        // Float attention and projections against double.
        EXPECT_NEAR(actual[i], expected[i], 2e-5 * (1e-3 + expected[i / kPoints * kPoints]))
            << name << " head " << i / kPoints << " point " << i % kPoints;
      }
    }
  }

  ProfileOptions options_ = TinyOptions();
  std::vector<TestWindow> windows_;
  model::LayerWeights weights_;
  Rows o_;  // the same numbers
};

TEST_F(CurveCollectorTest, EqualsTheDefinition) { ExpectSlowCurves(TinyConfig(), 1); }

TEST_F(CurveCollectorTest, HeadsOfALatentKeepTheSameTokens) {
  ModelConfig config = TinyConfig();
  config.keys.layout = KeyLayout::kLatent;
  config.keys.num_groups = 1;
  config.keys.ranks = {{3}, {3}};
  ExpectSlowCurves(config, kKvHeads);
}

TEST_F(CurveCollectorTest, GivesTheScoresOfTheLastVisit) {
  ProfileSums sums;
  CurveCollector collector(TinyConfig(), options_, sums);
  for (const TestWindow& window : windows_) {
    collector.Visit(0, window.taps, weights_, window.energy);
    ASSERT_EQ(collector.scores().size(), 1U);
    ASSERT_EQ(std::ssize(collector.scores()[0]), kKvHeads);
    for (int64_t g = 0; g < kKvHeads; ++g) {
      for (int64_t j = 0; j < options_.context; ++j) {
        const Row& key = window.keys[g][j];
        const double norm = std::sqrt(std::inner_product(key.begin(), key.end(), key.begin(), 0.0));
        EXPECT_NEAR(collector.scores()[0][g][j], -norm, 1e-6 * norm);
      }
    }
  }
  ASSERT_EQ(collector.output_grams().sizes(), (std::vector<int64_t>{kHeads, kWidth, kWidth}));
  const torch::Tensor head = weights_.o.narrow(1, kWidth, kWidth);  // of head 1
  EXPECT_TRUE(torch::allclose(collector.output_grams()[1], torch::matmul(head.t(), head), 1e-5));
}

}  // namespace
}  // namespace kvc::profile
