#include "profile/profile_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "model/streamed.h"
#include "tests/model/golden_models.h"
#include "tests/profile/profile_case.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::profile {
namespace {

constexpr int64_t kPoints = kCurveIntervals + 1;

// --- The whole stage against a slow double-precision version -----------------------------------

// The tokens that a layer sees of the context, `begin` .. `end` - 1: the last ones in a layer with
// a window (wider than sinks and the newest tokens), which are its whole prompt.
struct Seen {
  int64_t begin = 0;
  int64_t end = 0;
  [[nodiscard]] int64_t count() const { return end - begin; }
};

Seen SeenBy(const ModelConfig& config, int64_t layer, int64_t context) {
  return {std::max<int64_t>(0, context - config.window(layer).value_or(context)), context};
}

// Importance [G][seen] from the full attention matrix and the full width of the model.
std::vector<std::vector<double>> SlowImportance(const model::LayerTaps& taps,
                                                const torch::Tensor& o,
                                                const ModelConfig& config,
                                                const Seen& seen) {
  const torch::Tensor a = taps.probabilities[0].to(torch::kFloat64);  // [H, T, T]
  const torch::Tensor v = taps.v[0].to(torch::kFloat64);              // [G, T, D]
  const int64_t width = config.head_width;
  std::vector<torch::Tensor> norms;  // of each query head [context]
  torch::Tensor total = torch::zeros({}, torch::kFloat64);
  for (int64_t h = 0; h < config.num_heads; ++h) {
    const torch::Tensor w = o.narrow(1, h * width, width).to(torch::kFloat64);  // [E, D]
    norms.push_back(torch::matmul(v[h / config.group_size()], w.t())
                        .norm(2, {1})
                        .narrow(0, seen.begin, seen.count()));
    total = total + norms.back().sum();
  }
  std::vector<std::vector<double>> importance(config.num_kv_heads,
                                              std::vector<double>(seen.count(), 0.0));
  for (int64_t h = 0; h < config.num_heads; ++h) {
    for (int64_t t = seen.end; t < a.size(1); ++t) {
      const torch::Tensor use = a[h][t].narrow(0, seen.begin, seen.count()) * norms[h] / total;
      auto& best = importance[h / config.group_size()];
      for (int64_t j = 0; j < seen.count(); ++j) best[j] = std::max(best[j], use[j].item<double>());
    }
  }
  return importance;
}

// Adds a head's curve when the evictable tokens are kept by descending `key`.
void AddSlowCurve(const std::vector<double>& importance,
                  const std::vector<double>& key,
                  const ProfileOptions& options,
                  double* curve) {
  std::vector<std::pair<double, int64_t>> order;  // (-key, token): earlier first among equals
  for (int64_t j = options.sinks; j < std::ssize(key) - options.window; ++j) {
    order.emplace_back(-key[j], j);
  }
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < kPoints; ++i) {
    const double kept = static_cast<double>(i) * order.size() / kCurveIntervals;
    for (size_t m = 0; m < order.size(); ++m) {
      const double stays = std::clamp(kept - static_cast<double>(m), 0.0, 1.0);
      curve[i] += (1.0 - stays) * importance[order[m].second];
    }
  }
}

std::vector<double> Sum(const std::vector<std::vector<double>>& rows,
                        int64_t first,
                        int64_t count) {
  std::vector<double> sum(rows[first].size(), 0.0);
  for (int64_t r = first; r < first + count; ++r) {
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += rows[r][j];
  }
  return sum;
}

// Mean oracle curve and mean key-norm curve of every head, [L * G * points] each.
struct SlowCurves {
  std::vector<double> oracle, knorm;
};

SlowCurves SlowProfile(const Checkpoint& checkpoint,
                       const std::vector<std::vector<int32_t>>& windows,
                       const ProfileOptions& options) {
  const ModelConfig& config = checkpoint.config();
  SlowCurves curves;
  curves.oracle.assign(config.num_layers * config.num_kv_heads * kPoints, 0.0);
  curves.knorm = curves.oracle;
  model::StreamOptions stream;
  stream.taps = {.projections = true, .probabilities = true};
  NoProgress silent;
  const int64_t share = config.num_kv_heads / config.num_key_groups();
  const auto visit = [&](int64_t layer, int64_t, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
    const Seen seen = SeenBy(config, layer, options.context);
    const auto importance = SlowImportance(taps, weights.o, config, seen);
    std::vector<std::vector<double>> norms;  // [G][seen], minus the key norms, sum -1 in a group
    for (int64_t g = 0; g < config.num_kv_heads; ++g) {
      const torch::Tensor norm =
          taps.k[0][g].narrow(0, seen.begin, seen.count()).to(torch::kFloat64).norm(2, {1});
      const double sum = norm.sum().item<double>();
      norms.emplace_back();
      for (int64_t j = 0; j < seen.count(); ++j) {
        norms.back().push_back(-norm[j].item<double>() / sum);
      }
    }
    for (int64_t g = 0; g < config.num_kv_heads; ++g) {
      const int64_t first = g / share * share;
      const int64_t offset = (layer * config.num_kv_heads + g) * kPoints;
      AddSlowCurve(importance[g], Sum(importance, first, share), options, &curves.oracle[offset]);
      AddSlowCurve(importance[g], Sum(norms, first, share), options, &curves.knorm[offset]);
    }
  };
  static_cast<void>(model::StreamWindows(checkpoint, windows, stream, visit, silent, "slow"));
  for (double& x : curves.oracle) x /= static_cast<double>(windows.size());
  for (double& x : curves.knorm) x /= static_cast<double>(windows.size());
  return curves;
}

void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    // Relative to the head's whole mass: float attention against double, some 1e-6 of it.
    const double mass = expected[i / kPoints * kPoints];
    ASSERT_NEAR(actual[i], expected[i], 1e-4 * mass)
        << "head " << i / kPoints << " point " << i % kPoints;
  }
}

class EveryFamily : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryFamily, EqualsSlowProfile) {
  const ProfileOptions options = OptionsFor(GetParam());
  const ProfileData data = Profile(GetParam(), options);
  const SlowCurves slow =
      SlowProfile(kvc::testing::OpenGolden(GetParam()), RandomWindows(options, 3), options);
  ExpectClose(data.oracle_curve, slow.oracle);
  ExpectClose(data.curves.at(ScorerKind::kKnorm), slow.knorm);
}

TEST_P(EveryFamily, CurvesKeepTheirPromises) {
  const ProfileOptions options = OptionsFor(GetParam());
  const ProfileData data = Profile(GetParam(), options);
  const ModelConfig config = kvc::testing::OpenGolden(GetParam()).config();
  ASSERT_EQ(data.curves.size(), options.scorers.size());
  ASSERT_EQ(data.error_curves.size(), options.scorers.size());
  const int64_t heads = config.num_layers * config.num_kv_heads;
  for (const auto& [scorer, curve] : data.curves) {
    ASSERT_EQ(std::ssize(curve), heads * kPoints);
    for (int64_t h = 0; h < heads; ++h) {
      const auto begin = curve.begin() + h * kPoints;
      EXPECT_TRUE(std::is_sorted(begin, begin + kPoints, std::greater<>())) << ToString(scorer);
      EXPECT_EQ(begin[kCurveIntervals], 0.0F);
      // Every order loses the same when nothing is kept.
      EXPECT_NEAR(begin[0], data.oracle_curve[h * kPoints], 1e-6 * begin[0]);
    }
    // Nothing loses less than the oracle; where heads share tokens, over the group.
    const int64_t share = config.num_kv_heads / config.num_key_groups();
    for (int64_t first = 0; first < heads; first += share) {
      for (int64_t i = 0; i < kPoints; ++i) {
        double lost = 0.0;
        double least = 0.0;
        for (int64_t h = first; h < first + share; ++h) {
          lost += curve[h * kPoints + i];
          least += data.oracle_curve[h * kPoints + i];
        }
        EXPECT_GE(lost, least * (1 - 1e-6)) << ToString(scorer) << " head " << first;
      }
    }
  }
  for (const auto& [scorer, curve] : data.error_curves) {
    ASSERT_EQ(std::ssize(curve), heads * kPoints);
    for (int64_t h = 0; h < heads; ++h) {
      const auto begin = curve.begin() + h * kPoints;
      EXPECT_TRUE(std::is_sorted(begin, begin + kPoints, std::greater<>())) << ToString(scorer);
      EXPECT_GT(begin[0], 0.0F);
      EXPECT_EQ(begin[kCurveIntervals], 0.0F);
    }
  }
  ASSERT_EQ(data.mixed_curves.size(), options.scorers.size() - 3);  // three scores are no losses
  for (const auto& [scorer, curve] : data.mixed_curves) {
    ASSERT_EQ(std::ssize(curve), heads * kPoints);
    const std::vector<float>& dropping = data.error_curves.at(scorer);
    for (int64_t h = 0; h < heads; ++h) {
      const auto begin = curve.begin() + h * kPoints;
      EXPECT_TRUE(std::is_sorted(begin, begin + kPoints, std::greater<>())) << ToString(scorer);
      // Nothing kept is the same whatever the tiers, measured in another way.
      EXPECT_NEAR(begin[0], dropping[h * kPoints], 1e-3 * begin[0]) << ToString(scorer);
      EXPECT_EQ(begin[kCurveIntervals], 0.0F);
    }
  }
  EXPECT_EQ(data.tiers.size(), 3U);
  ASSERT_EQ(std::ssize(data.bases), config.num_layers);
  EXPECT_NO_THROW(CheckBases(data.bases));
  double sum = 0.0;
  for (const float share : data.importance) sum += share;
  EXPECT_EQ(std::ssize(data.importance), heads);
  EXPECT_NEAR(sum, 1.0, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         EveryFamily,
                         ::testing::ValuesIn(kvc::testing::GoldenNames()),
                         kvc::testing::ParameterName());

// Attention sees distances alone, so curves of whole tokens stay, to the bit; bases follow the
// keys.
TEST(ProfileModel, PositionsMoveTheBasesAlone) {
  ProfileOptions options = SmallOptions();
  const ProfileData spread = Profile("llama", options, 3);
  options.positions = options.context + options.horizon;
  const ProfileData near = Profile("llama", options, 3);
  EXPECT_EQ(spread.curves, near.curves);
  EXPECT_EQ(spread.error_curves, near.error_curves);
  ASSERT_EQ(spread.bases.size(), near.bases.size());
  EXPECT_NE(spread.bases[0].key_mean, near.bases[0].key_mean);
  EXPECT_EQ(spread.bases[0].value_mean, near.bases[0].value_mean);
}

// --- Refusals -----------------------------------------------------------------------------------

TEST(ProfileModel, OnlyFullWidthHasNoCurvesWithTiers) {
  ProfileOptions options = SmallOptions();
  options.tiers = ParseNamedTiers("0,1", "tiers");
  const ProfileData data = Profile("llama", options);
  EXPECT_TRUE(data.mixed_curves.empty());
  EXPECT_EQ(data.tiers.size(), 1U);
}

TEST(ProfileModel, RefusesWindowsOfAnotherLength) {
  ProfileOptions options = SmallOptions();
  auto windows = RandomWindows(options, 2);
  windows[1].pop_back();
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  const kvc::testing::TempDir directory;
  NoProgress silent;
  EXPECT_KVC_ERROR(static_cast<void>(ProfileModel(checkpoint, Inputs(checkpoint, windows), options,
                                                  directory.path(), silent)),
                   kBadShape, "expected 48 tokens, got 47");
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace kvc::profile
