#include <gtest/gtest.h>

#include "profile/profile_model.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

constexpr int64_t kPoints = kCurveIntervals + 1;

ProfileOptions SmallOptions() {
  ProfileOptions options;
  options.scorers = {ScorerKind::kSnapKv, ScorerKind::kKnorm};
  options.context = 40;
  options.horizon = 8;
  options.sinks = 2;
  options.window = 5;
  return options;
}

TEST(CheckProfileOptions, RefusesByName) {
  const ModelConfig config = kvc::testing::OpenGolden("llama").config();
  const auto check = [&](auto change) {
    ProfileOptions options = SmallOptions();
    change(options);
    CheckProfileOptions(options, config);
  };
  EXPECT_NO_THROW(check([](auto&) {}));
  EXPECT_KVC_ERROR(check([](auto& o) { o.context = 7; }), kUsage, "--context");
  EXPECT_NO_THROW(check([](auto& o) { o.context = 8; }));
  EXPECT_KVC_ERROR(check([](auto& o) { o.context = 1 << 20; }), kUsage, "model's context");
  EXPECT_KVC_ERROR(check([](auto& o) { o.horizon = 0; }), kUsage, "--horizon");
  EXPECT_KVC_ERROR(check([](auto& o) { o.windows = 0; }), kUsage, "--windows");
  EXPECT_KVC_ERROR(check([](auto& o) { o.sinks = -1; }), kUsage, "--sinks");
  EXPECT_KVC_ERROR(check([](auto& o) { o.scorers.clear(); }), kUsage, "--scorer");
  EXPECT_KVC_ERROR(check([](auto& o) { o.scorers.push_back(ScorerKind::kKnorm); }), kUsage,
                   "knorm twice");
  EXPECT_NO_THROW(check([](auto& o) { o.continuation = Continuation::kSample; }));
  EXPECT_NO_THROW(check([](auto& o) { o.importance = Importance::kNeedle; }));
  EXPECT_KVC_ERROR(check([](auto& o) { o.needle_tests = 3; }), kUsage, "--needle-tests");
  EXPECT_KVC_ERROR(static_cast<void>(ParseNamedTiers("0,1/8", "--tiers")), kUsage, "--tiers");
}

TEST(ProfileOptions, NamesAreTheirParsers) {
  for (const std::string_view name : {"teacher", "sample"}) {
    EXPECT_EQ(ContinuationName(ContinuationFromName(name)), name);
  }
  for (const std::string_view name : {"oracle", "needle"}) {
    EXPECT_EQ(ImportanceName(ImportanceFromName(name)), name);
  }
  EXPECT_KVC_ERROR((void)ContinuationFromName("guess"), kUsage, "guess");
  EXPECT_KVC_ERROR((void)ImportanceFromName("entropy"), kUsage, "got entropy");
}

TEST(PlanProfile, CountsTokensAndHiddenStates) {
  const ModelConfig config = kvc::testing::OpenGolden("llama").config();
  const ProfilePlan plan = PlanProfile(config, SmallOptions(), 10);
  EXPECT_EQ(plan.tokens, 480);
  EXPECT_EQ(plan.hidden_bytes, 480 * config.model_width * 4);
  EXPECT_GT(plan.memory_bytes, plan.hidden_bytes);
}

TEST(FirstPosition, SpreadsWindowsOverThePositions) {
  ModelConfig config = kvc::testing::OpenGolden("llama").config();
  config.context_length = 1048;
  ProfileOptions options = SmallOptions();  // windows of 48 tokens
  EXPECT_EQ(FirstPosition(config, options, 0, 5), 0);
  EXPECT_EQ(FirstPosition(config, options, 1, 5), 62);  // 1000 / 16
  EXPECT_EQ(FirstPosition(config, options, 2, 5), 250);
  EXPECT_EQ(FirstPosition(config, options, 4, 5), 1000);
  EXPECT_EQ(FirstPosition(config, options, 0, 1), 0);
  options.positions = 148;
  EXPECT_EQ(FirstPosition(config, options, 4, 5), 100);
  EXPECT_NO_THROW(CheckProfileOptions(options, config));
  for (const int64_t positions : {47, 1049}) {
    options.positions = positions;
    EXPECT_KVC_ERROR(CheckProfileOptions(options, config), kUsage, "48 (a window) to 1048");
  }
  options.positions.reset();
  config.keys.layout = KeyLayout::kLatent;  // rotated when they are rebuilt
  EXPECT_EQ(FirstPosition(config, options, 4, 5), 0);
  EXPECT_EQ(FirstPosition(kvc::testing::OpenGolden("gpt2").config(), options, 4, 5), 0);
}

TEST(Defaults, FollowTheKeys) {
  ModelConfig config = kvc::testing::OpenGolden("llama").config();
  EXPECT_EQ(ToString(DefaultScorer(config)), "output-error:prompt=1024");
  EXPECT_EQ(DefaultTiers(config).text, kBitTiers);
  EXPECT_EQ(DefaultTiers(config).tiers, ParseTiers(kBitTiers, ""));
  config.keys.layout = KeyLayout::kPostRope;  // no query can be turned; rows have steps
  EXPECT_EQ(ToString(DefaultScorer(config)), "output-error");
  EXPECT_EQ(DefaultTiers(config).text, kBitTiers);
  config.keys.layout = KeyLayout::kLatent;
  EXPECT_EQ(ToString(DefaultScorer(config)), "output-error:prompt=1024");
  EXPECT_FALSE(InFewBits(DefaultTiers(config).tiers));
}

TEST(MeanLoss, IsTheShareOfAllMass) {
  ProfileData data;
  data.oracle_curve.assign(2 * kPoints, 0.0F);
  data.oracle_curve[0] = 3.0F;
  data.oracle_curve[kPoints] = 1.0F;
  data.oracle_curve[32] = 0.5F;  // a quarter kept
  data.oracle_curve[kPoints + 32] = 0.5F;
  EXPECT_DOUBLE_EQ(MeanLoss(data, nullptr, 0.25), 0.25);
  EXPECT_DOUBLE_EQ(MeanLoss(data, nullptr, 1.0), 0.0);
}

}  // namespace
}  // namespace kvc::profile
