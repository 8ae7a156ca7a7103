#include "profile/profile_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "linalg/svd.h"
#include "model/streamed.h"
#include "model/threads.h"
#include "pipeline/profile_bases.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thread_ranks.h"

namespace kvc::profile {
namespace {

constexpr int64_t kPoints = kCurveIntervals + 1;

ProfileOptions SmallOptions() {
  ProfileOptions options;
  options.scorers = {ScorerKind::kSnapKv,    ScorerKind::kExpectedAttention,
                     ScorerKind::kKeyDiff,   ScorerKind::kKnorm,
                     ScorerKind::kStreaming, ScorerSpec(ScorerKind::kOutputError, {.pool = 3})};
  options.context = 40;
  options.horizon = 8;
  options.sinks = 2;
  options.window = 5;
  return options;
}

// Keys that are thin behind their rotation refuse the scorer that turns queries.
ProfileOptions OptionsFor(const std::string& model) {
  ProfileOptions options = SmallOptions();
  if (model.find("-rope") != std::string::npos) {
    std::erase(options.scorers, ScorerSpec(ScorerKind::kExpectedAttention));
  }
  return options;
}

// No token stands twice in a window: rotation keeps the norm of equal keys equal, and rounding
// would then decide their order.
std::vector<std::vector<int32_t>> RandomWindows(const ProfileOptions& options, int64_t count) {
  Rng rng(77);
  std::vector<std::vector<int32_t>> windows(count);
  for (auto& window : windows) {
    std::vector<int32_t> tokens(96);
    std::iota(tokens.begin(), tokens.end(), 0);
    for (int64_t t = 0; t < options.context + options.horizon; ++t) {
      std::swap(tokens[t], tokens[t + rng.NextBelow(96 - t)]);
      window.push_back(tokens[t]);
    }
  }
  return windows;
}

const Json kProvenance = {{"seed", 42}};

ProfileInputs Inputs(const Checkpoint& checkpoint, std::vector<std::vector<int32_t>> windows) {
  ProfileInputs inputs;
  inputs.windows = std::move(windows);
  inputs.make_bases = [&checkpoint](int64_t layer, const LayerGrams& grams) {
    const auto svd = linalg::Svd::Create(linalg::SvdBackend::kEigen);
    return pipeline::MakeBases(checkpoint.config(), layer, grams, *svd);
  };
  inputs.provenance = kProvenance;
  return inputs;
}

ProfileData Profile(const std::string& model,
                    const ProfileOptions& options,
                    int64_t num_windows = 3) {
  const kvc::testing::TempDir directory;
  NoProgress silent;
  const Checkpoint checkpoint = kvc::testing::OpenGolden(model);
  return ProfileModel(checkpoint, Inputs(checkpoint, RandomWindows(options, num_windows)), options,
                      directory.path(), silent);
}

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

// --- Interrupted runs ---------------------------------------------------------------------------

// Interrupts at the given report, like a signal does.
class InterruptAt : public NoProgress {
 public:
  explicit InterruptAt(int64_t report) : left_(report) {}
  void Report(const std::string& stage, int64_t, int64_t) override {
    KVC_CHECK(left_-- > 0, kInterrupted, "{}: interrupted", stage);
  }

 private:
  int64_t left_;
};

void ExpectSameBits(const ProfileData& a, const ProfileData& b) {
  ASSERT_EQ(a.bases.size(), b.bases.size());
  for (size_t l = 0; l < a.bases.size(); ++l) {
    EXPECT_EQ(a.bases[l].key, b.bases[l].key);
    EXPECT_EQ(a.bases[l].query, b.bases[l].query);
    EXPECT_EQ(a.bases[l].value, b.bases[l].value);
    EXPECT_EQ(a.bases[l].output, b.bases[l].output);
    EXPECT_EQ(a.bases[l].key_steps, b.bases[l].key_steps);
    EXPECT_EQ(a.bases[l].value_steps, b.bases[l].value_steps);
  }
  EXPECT_EQ(a.error_curves, b.error_curves);
  EXPECT_EQ(a.mixed_curves, b.mixed_curves);
  EXPECT_EQ(a.curves, b.curves);
  EXPECT_EQ(a.oracle_curve, b.oracle_curve);
  EXPECT_EQ(a.importance, b.importance);
  EXPECT_EQ(a.options.dump(), b.options.dump());
  EXPECT_EQ(a.model_sha256, b.model_sha256);
}

TEST(ProfileModel, GoesOnAfterAnInterruption) {
  const ProfileOptions options = SmallOptions();
  const auto windows = RandomWindows(options, 3);
  const Checkpoint checkpoint = kvc::testing::OpenGolden("qwen3");
  const ProfileData expected = Profile("qwen3", options);
  for (int64_t report = 0; report < 6; ++report) {  // 2 layers x 3 windows
    const kvc::testing::TempDir directory;
    InterruptAt stop(report);
    EXPECT_KVC_ERROR(static_cast<void>(ProfileModel(checkpoint, Inputs(checkpoint, windows),
                                                    options, directory.path(), stop)),
                     kInterrupted, "profile");
    EXPECT_EQ(HasProgress(directory.path()), report >= 3);
    NoProgress silent;
    const ProfileData data =
        ProfileModel(checkpoint, Inputs(checkpoint, windows), options, directory.path(), silent);
    ExpectSameBits(data, expected);
    RemoveProgress(directory.path());
    EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  }
}

// A run that was killed behind its last layer has only its result to write.
TEST(ProfileModel, GoesOnBehindTheLastLayer) {
  const ProfileOptions options = SmallOptions();
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  const ProfileInputs inputs = Inputs(checkpoint, RandomWindows(options, 2));
  const kvc::testing::TempDir directory;
  NoProgress silent;
  const auto run = [&] {
    return ProfileModel(checkpoint, inputs, options, directory.path(), silent);
  };
  const ProfileData first = run();
  ExpectSameBits(run(), first);
}

TEST(ProfileModel, RanksDoNotChangeBits) {
  const ProfileOptions options = SmallOptions();
  const int before = model::NumThreads();
  model::SetThreads(1);  // ranks are threads here
  const ProfileData one = Profile("llama-latent", options, 5);
  for (const int size : {2, 3, 6}) {
    const kvc::testing::TempDir directory;
    kvc::testing::RunRanks(size, [&](Ranks& ranks) {
      const Checkpoint checkpoint = kvc::testing::OpenGolden("llama-latent");
      NoProgress silent;
      const ProfileData data =
          ProfileModel(checkpoint, Inputs(checkpoint, RandomWindows(options, 5)), options,
                       directory.path(), silent, ranks);
      if (ranks.rank() == size - 1) ExpectSameBits(data, one);
    });
  }
  model::SetThreads(before);
}

TEST(ProfileModel, RefusesTheProgressOfAnotherRun) {
  const ProfileOptions options = SmallOptions();
  const auto windows = RandomWindows(options, 2);
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  const kvc::testing::TempDir directory;
  InterruptAt stop(3);
  EXPECT_ANY_THROW(static_cast<void>(
      ProfileModel(checkpoint, Inputs(checkpoint, windows), options, directory.path(), stop)));
  NoProgress silent;
  const auto go_on = [&](const Checkpoint& model, const auto& texts, const ProfileOptions& o) {
    static_cast<void>(ProfileModel(model, Inputs(model, texts), o, directory.path(), silent));
  };
  ProfileOptions other = options;
  other.sinks = 3;
  EXPECT_KVC_ERROR(go_on(checkpoint, windows, other), kUsage, "sinks: expected 2");
  other = options;
  other.scorers.pop_back();
  EXPECT_KVC_ERROR(go_on(checkpoint, windows, other), kUsage, "scorers");
  auto other_windows = windows;
  other_windows[1][7] ^= 1;
  EXPECT_KVC_ERROR(go_on(checkpoint, other_windows, options), kUsage, "windows_sha256");
  EXPECT_KVC_ERROR(go_on(kvc::testing::OpenGolden("mistral"), windows, options), kUsage,
                   "model_sha256");
}

TEST(ProfileModel, ThreadsDoNotChangeBits) {
  const ProfileOptions options = SmallOptions();
  const int before = model::NumThreads();
  model::SetThreads(1);
  const ProfileData one = Profile("llama-latent", options, 5);
  model::SetThreads(3);
  const ProfileData three = Profile("llama-latent", options, 5);
  model::SetThreads(before);
  ExpectSameBits(one, three);
}

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
