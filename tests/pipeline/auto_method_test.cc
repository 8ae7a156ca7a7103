#include "pipeline/choose/auto_method.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::choose {
namespace {

Json Line(double kld, int64_t needles) { return {{"kld_mean", kld}, {"needles_found", needles}}; }

size_t ChooseLine(const Json& lines, double least_needles) {
  return RankLines(lines, least_needles)[0];
}

TEST(RankLines, OrdersTheRestByDivergenceToo) {
  const Json lines = {Line(0.0, 10), Line(0.1, 8), Line(0.2, 9), Line(0.3, 10), Line(0.05, 2)};
  EXPECT_EQ(RankLines(lines, 0.9), (std::vector<size_t>{2, 3, 4, 1}));
}

TEST(ChooseLine, TakesTheLeastDivergenceBehindTheReference) {
  const Json lines = {
      {{"kld_mean", 0.0}}, {{"kld_mean", 0.3}}, {{"kld_mean", 0.1}}, {{"kld_mean", 0.2}}};
  EXPECT_EQ(ChooseLine(lines, 0.9), 2U);
}

TEST(ChooseLine, PassesOverThoseThatLoseNeedles) {
  const Json lines = {Line(0.0, 10), Line(0.1, 8), Line(0.2, 9), Line(0.3, 10)};
  EXPECT_EQ(ChooseLine(lines, 0.9), 2U);
  EXPECT_EQ(ChooseLine(lines, 1.0), 3U);
  EXPECT_EQ(ChooseLine(lines, 0.0), 1U);
}

TEST(ChooseLine, TakesMostNeedlesWhereNoneFindsEnough) {
  const Json lines = {Line(0.0, 10), Line(0.1, 2), Line(0.2, 4), Line(0.15, 4)};
  EXPECT_EQ(ChooseLine(lines, 0.9), 3U);
}

TEST(ChooseLine, TiesGoToTheEarlierLine) {
  EXPECT_EQ(ChooseLine({Line(0.0, 1), Line(0.5, 1), Line(0.5, 1)}, 0.9), 1U);
}

TEST(ParseCandidate, SplitsAtTheComma) {
  const testing::TempDir dir;
  const std::string model = dir.path().string();
  EXPECT_EQ(ParseCandidate(model).profile, "");
  EXPECT_EQ(ParseCandidate(model + ",p").model, model);
  EXPECT_EQ(ParseCandidate(model + ",p").profile, "p");
  EXPECT_KVC_ERROR((void)ParseCandidate(model + "/none,p"), kUsage, "--candidate");
}

TEST(DefaultPolicies, FollowTheProfile) {
  ProfileData profile;
  const ScorerSpec snapkv;
  profile.curves[snapkv] = {};
  EXPECT_EQ(DefaultPolicies(&profile), (std::vector<std::string>{"uniform/snapkv", "lukv/snapkv"}));
  profile.error_curves[snapkv] = {};
  profile.importance = {1.0F};
  EXPECT_EQ(DefaultPolicies(&profile),
            (std::vector<std::string>{"uniform/snapkv", "lukv/snapkv", "lukv/snapkv/output-error",
                                      "headkv/snapkv"}));
  profile.mixed_curves[snapkv] = {};
  EXPECT_EQ(
      DefaultPolicies(&profile),
      (std::vector<std::string>{"uniform/snapkv@0,1/8,1/4,1", "lukv/snapkv",
                                "lukv/snapkv/output-error", "lukv-mixed/snapkv",
                                "lukv-mixed/snapkv/output-error", "headkv/snapkv@0,1/8,1/4,1"}));
  profile.options = {{"tiers", "0,1/2,1"}};
  EXPECT_EQ(DefaultPolicies(&profile)[3], "lukv-mixed/snapkv@0,1/2,1");
  for (const bool behind_rotation : {false, true}) {
    const std::vector<std::string> policies = DefaultPolicies(nullptr, behind_rotation);
    for (const std::string& policy : policies) {
      EXPECT_FALSE(policy.starts_with("lukv") || policy.starts_with("headkv")) << policy;
    }
    // It turns queries, which keys that are thin behind their rotation do not allow.
    EXPECT_EQ(std::ranges::count(policies, "uniform/output-error:prompt=1024"),
              behind_rotation ? 0 : 1);
  }
}

}  // namespace
}  // namespace kvc::choose
