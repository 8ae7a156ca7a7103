#include "profile/mixed_curves.h"

#include <array>
#include <limits>

#include <gtest/gtest.h>

#include "tests/profile/collector_case.h"

namespace kvc::profile {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace)
using torch::Tensor;

constexpr int64_t kEvictable = 4;
constexpr int64_t kKept = 2;  // coordinates of the narrow tier

// A pair of bases with a mean, for each kv head: rows y = (x - mean) forward, x = mean + y back^T.
struct TestBasis {
  std::vector<float> forward, back, mean;  // [G, D, D], [G, D, D], [G, D]
};

TestBasis RandomBasis() {
  TestBasis basis;
  for (int64_t g = 0; g < kKvHeads; ++g) {
    const Tensor forward = torch::randn({kWidth, kWidth}) + 2 * torch::eye(kWidth);
    const Tensor back = torch::inverse(forward.to(torch::kFloat64)).t().to(torch::kFloat32);
    const Tensor mean = torch::randn({kWidth});
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t j = 0; j < kWidth; ++j) {
        basis.forward.push_back(forward[i][j].item<float>());
        basis.back.push_back(back[i][j].item<float>());
      }
      basis.mean.push_back(mean[i].item<float>());
    }
  }
  return basis;
}

// What the first coordinates keep of a row.
Row SlowTier(const Row& x, const TestBasis& basis, int64_t g) {
  const auto at = [&](const std::vector<float>& matrix, int64_t i, int64_t j) {
    return double(matrix[(g * kWidth + i) * kWidth + j]);
  };
  Row y(kKept, 0.0);
  Row row(kWidth);
  for (int64_t d = 0; d < kWidth; ++d) row[d] = basis.mean[g * kWidth + d];
  for (int64_t r = 0; r < kKept; ++r) {
    for (int64_t d = 0; d < kWidth; ++d) {
      y[r] += (x[d] - basis.mean[g * kWidth + d]) * at(basis.forward, d, r);
    }
    for (int64_t d = 0; d < kWidth; ++d) row[d] += y[r] * at(basis.back, d, r);
  }
  return row;
}

// A choice for the evictable tokens: 0 dropped, 1 whole, 2 narrow.
using Choice = std::vector<int>;

class MixedCollectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    options_.scorers = {ScorerKind::kKnorm, ScorerKind::kSnapKv};  // the first has no curve
    options_.tiers = ParseNamedTiers("0,1/2,1", "tiers");
    weights_.o = torch::randn({kModelWidth, kHeads * kWidth});
    o_ = RowsOfTensor(weights_.o);
    key_basis_ = RandomBasis();
    value_basis_ = RandomBasis();
    bases_.num_kv_heads = kKvHeads;
    bases_.key_width = bases_.value_width = kWidth;
    bases_.key = key_basis_.forward;
    bases_.query = key_basis_.back;
    bases_.key_mean = key_basis_.mean;
    bases_.value = value_basis_.forward;
    bases_.output = value_basis_.back;
    bases_.value_mean = value_basis_.mean;
    for (int w = 0; w < 2; ++w) {
      windows_.push_back(RandomWindow(options_));
      WindowScores scores(2, std::vector<std::vector<float>>(kKvHeads));
      for (auto& groups : scores) {
        for (auto& group : groups) {
          const Tensor random = torch::rand({options_.context});
          for (int64_t j = 0; j < options_.context; ++j) group.push_back(random[j].item<float>());
        }
      }
      scores_.push_back(std::move(scores));
    }
  }

  [[nodiscard]] std::vector<CachedRow> After(const TestWindow& window,
                                             int64_t g,
                                             const Choice& choice) const {
    std::vector<CachedRow> rows = RowsOf(window, g);
    for (int64_t i = 0; i < kEvictable; ++i) {
      CachedRow& row = rows[options_.sinks + i];
      if (choice[i] == 0) row.present = false;
      if (choice[i] == 2) {
        row.key = SlowTier(row.key, key_basis_, g);
        row.value = SlowTier(row.value, value_basis_, g);
      }
    }
    return rows;
  }

  // The loss of one token's choice by the window's queries, scaled to what the fitted map makes of
  // its score.
  [[nodiscard]] double Loss(int64_t w, int64_t g, int64_t token, int choice) const {
    const TestWindow& window = windows_[w];
    const auto change = [&](int what) {
      Choice one(kEvictable, 1);
      one[token] = what;
      double sum = 0.0;
      for (int64_t h = g * kShare; h < (g + 1) * kShare; ++h) {
        for (int64_t t = options_.context - options_.window; t < options_.context; ++t) {
          sum += Change(window, o_, h, t, RowsOf(window, g), After(window, g, one));
        }
      }
      return sum;
    };
    const LossMapView map(bases_.loss_maps.at(options_.scorers[1]), g);
    return map(scores_[w][1][g][options_.sinks + token]) * change(choice) / change(0);
  }

  // [token][choice] of a window and a kv head.
  using Losses = std::array<std::array<double, 3>, kEvictable>;
  [[nodiscard]] Losses AllLosses(int64_t w, int64_t g) const {
    Losses losses;
    for (int64_t i = 0; i < kEvictable; ++i) {
      for (int c = 0; c < 3; ++c) losses[i][c] = Loss(w, g, i, c);
    }
    return losses;
  }

  // The choice of least loss whose rows fit `budget`, of all that there are; a whole token takes
  // 2 D elements, a narrow one half of them.
  [[nodiscard]] static Choice BestWithin(const Losses& losses, int64_t budget) {
    constexpr int64_t kCosts[] = {0, 2 * kWidth, 2 * kKept};
    Choice best;
    double least = std::numeric_limits<double>::infinity();
    for (int code = 0; code < 81; ++code) {
      Choice choice;
      int64_t cost = 0;
      double loss = 0.0;
      for (int64_t i = 0, rest = code; i < kEvictable; ++i, rest /= 3) {
        choice.push_back(static_cast<int>(rest % 3));
        cost += kCosts[choice.back()];
        loss += losses[i][choice.back()];
      }
      if (cost > budget || loss >= least) continue;
      least = loss;
      best = choice;
    }
    return best;
  }

  // Sums of layer 1 over all windows; its maps go into bases_.
  ProfileSums Collect() {
    const ModelConfig config = TinyConfig();
    ProfileSums sums;
    MixedCollector collector(config, options_, sums);
    for (size_t w = 0; w < windows_.size(); ++w) {
      collector.Visit(1, windows_[w].taps, weights_, windows_[w].energy,
                      OutputProjectionGrams(weights_.o, kHeads), scores_[w]);
    }
    collector.Finish(1, bases_);
    return sums;
  }

  ProfileOptions options_ = TinyOptions();
  model::LayerWeights weights_;
  Rows o_;  // the same numbers
  TestBasis key_basis_, value_basis_;
  LayerBases bases_;
  std::vector<TestWindow> windows_;
  std::vector<WindowScores> scores_;
};

TEST_F(MixedCollectorTest, EqualsTheBestOfAllChoices) {
  const ProfileSums sums = Collect();
  ASSERT_EQ(sums.size(), 2U);  // of the curves and of the maps
  const std::vector<double>& curve = sums.at(MixedSum(ToString(options_.scorers[1])));
  ASSERT_EQ(std::ssize(curve), 2 * kKvHeads * kPoints);
  for (int64_t i = 0; i < kKvHeads * kPoints; ++i) EXPECT_EQ(curve[i], 0.0);  // layer 0
  for (int64_t g = 0; g < kKvHeads; ++g) {
    const double* head = &curve[(kKvHeads + g) * kPoints];
    const Losses losses[] = {AllLosses(0, g), AllLosses(1, g)};
    // Budgets between those at which another row fits change nothing.
    for (int64_t point = 0; point < kCurveIntervals; point += kCurveIntervals / 16) {
      double expected = 0.0;
      for (size_t w = 0; w < windows_.size(); ++w) {
        const int64_t budget = point * kEvictable * 2 * kWidth / kCurveIntervals;
        const Choice best = BestWithin(losses[w], budget);
        expected += SlowError(windows_[w], o_, g, options_, After(windows_[w], g, best));
      }
      // Tiers are float; at full width nothing is lost but their rounding.
      EXPECT_NEAR(head[point], expected, 1e-5 * head[0]) << "head " << g << " point " << point;
    }
    EXPECT_GT(head[0], 0.0);
    EXPECT_EQ(head[kCurveIntervals], 0.0);
  }
}

// Two windows of four tokens are one level: the mean score, and the mean of what dropping each of
// the tokens alone does to the horizon's outputs.
TEST_F(MixedCollectorTest, MapsHaveTheLossThatCame) {
  const ModelConfig config = TinyConfig();
  ProfileSums sums = Collect();
  ASSERT_EQ(bases_.loss_maps.size(), 1U);
  const LossMaps& maps = bases_.loss_maps.at(options_.scorers[1]);
  ASSERT_EQ(std::ssize(maps.scores), kKvHeads * kLossMapPoints);
  for (int64_t g = 0; g < kKvHeads; ++g) {
    double score = 0.0;
    double loss = 0.0;
    for (size_t w = 0; w < windows_.size(); ++w) {
      for (int64_t i = 0; i < kEvictable; ++i) {
        Choice one(kEvictable, 1);
        one[i] = 0;
        score += scores_[w][1][g][options_.sinks + i] / 8.0;
        loss += SlowError(windows_[w], o_, g, options_, After(windows_[w], g, one)) / kShare / 8.0;
      }
    }
    EXPECT_NEAR(maps.scores[g * kLossMapPoints], score, 1e-6 * score);
    EXPECT_NEAR(maps.losses[g * kLossMapPoints], loss, 1e-5 * loss);
  }
  // A run that goes on behind this layer has them from the sums.
  const ProfileSums saved = sums;
  MixedCollector resumed(config, options_, sums);
  sums = saved;
  LayerBases again;
  resumed.Finish(1, again);
  EXPECT_EQ(again.loss_maps, bases_.loss_maps);
}

TEST_F(MixedCollectorTest, OneTierHasNoCurves) {
  options_.tiers = ParseNamedTiers("0,1", "tiers");
  const ModelConfig config = TinyConfig();
  ProfileSums sums;
  MixedCollector collector(config, options_, sums);
  collector.Visit(0, windows_[0].taps, weights_, windows_[0].energy,
                  OutputProjectionGrams(weights_.o, kHeads), scores_[0]);
  collector.Finish(0, bases_);
  EXPECT_TRUE(sums.empty());
}

TEST(HasMixedCurve, NeedsScoresThatAreLosses) {
  EXPECT_TRUE(HasMixedCurve(ScorerKind::kSnapKv));
  EXPECT_TRUE(HasMixedCurve(ScorerKind::kExpectedAttention));
  EXPECT_TRUE(HasMixedCurve(ScorerKind::kOutputError));
  EXPECT_FALSE(HasMixedCurve(ScorerKind::kKnorm));
  EXPECT_FALSE(HasMixedCurve(ScorerKind::kKeyDiff));
  EXPECT_FALSE(HasMixedCurve(ScorerKind::kStreaming));
  EXPECT_FALSE(HasMixedCurve(ScorerSpec(ScorerKind::kOutputError, {.keydiff = 0.5})));
}

}  // namespace
}  // namespace kvc::profile
