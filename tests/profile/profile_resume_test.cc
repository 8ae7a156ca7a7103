// Runs that were interrupted, or have several ranks or threads, end with the bits of one that was
// not.

#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "core/cache/bit_spread.h"
#include "model/threads.h"
#include "profile/profile_model.h"
#include "profile/utility_curve.h"
#include "tests/profile/profile_case.h"
#include "tests/support/expect_error.h"
#include "tests/support/thread_ranks.h"

namespace kvc::profile {
namespace {

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

// Latents in few bits: bases and steps of the latents themselves, and curves and maps that follow
// them, the same for every number of ranks.
TEST(ProfileModel, LatentsInFewBitsHaveBasesAndSteps) {
  ProfileOptions options = SmallOptions();
  options.tiers = ParseNamedTiers("1x8,x4,1x2", "tiers");
  const ProfileData data = Profile("llama-latent", options, 3);
  const ModelConfig config = kvc::testing::OpenGolden("llama-latent").config();
  ASSERT_EQ(std::ssize(data.bases), config.num_layers);
  EXPECT_NO_THROW(CheckBases(data.bases));
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const LayerBases& bases = data.bases[l];
    EXPECT_EQ(bases.key_groups(), config.num_key_groups());
    EXPECT_EQ(bases.key_width, std::max(config.key_width(l, 0), config.key_width(l, 1)));
    EXPECT_EQ(std::ssize(bases.key_steps), bases.key_groups() * 3 * bases.key_width);
    EXPECT_EQ(std::ssize(bases.key_runs), bases.key_groups() * kMixedRates);
    // Fewer bits leave more of a column, and no bits all of it.
    for (int64_t i = 0; i < bases.key_width; ++i) {
      for (int64_t level = 1; level < kErrorLevels; ++level) {
        EXPECT_LE(bases.key_errors[(level - 1) * bases.key_width + i],
                  bases.key_errors[level * bases.key_width + i] * 1.0001F);
      }
    }
  }
  for (const auto& [scorer, curve] : data.mixed_curves) {
    for (size_t i = 0; i < curve.size(); i += kCurvePoints) {
      EXPECT_GT(curve[i], 0.0F) << ToString(scorer);
      EXPECT_EQ(curve[i + kCurvePoints - 1], 0.0F);
    }
  }
  const int before = model::NumThreads();
  model::SetThreads(1);  // ranks are threads here
  const ProfileData one = Profile("llama-latent", options, 3);
  const kvc::testing::TempDir directory;
  kvc::testing::RunRanks(2, [&](Ranks& ranks) {
    const Checkpoint checkpoint = kvc::testing::OpenGolden("llama-latent");
    NoProgress silent;
    const ProfileData two = ProfileModel(checkpoint, Inputs(checkpoint, RandomWindows(options, 3)),
                                         options, directory.path(), silent, ranks);
    if (ranks.rank() == 1) ExpectSameBits(two, one);
  });
  model::SetThreads(before);
  // Without bits of keys, latents stay as they are.
  options.tiers = ParseNamedTiers("0,1/2,1", "tiers");
  EXPECT_EQ(Profile("llama-latent", options, 3).bases[0].key_width, 0);
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

}  // namespace
}  // namespace kvc::profile
