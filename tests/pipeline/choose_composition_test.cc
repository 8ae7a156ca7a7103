#include "pipeline/choose/choose_composition.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "core/io/json.h"

namespace kvc::choose {
namespace {

ComparisonLine Line(double kld, std::optional<int64_t> needles = {}) {
  ComparisonLine line;
  line.text.emplace().divergence.kld_mean = kld;
  if (needles) line.needles = {{}, *needles, 0.0};
  return line;
}

size_t BestLine(const std::vector<ComparisonLine>& lines, double least_needles) {
  return RankLines(lines, least_needles)[0];
}

TEST(RankLines, OrdersTheRestByDivergenceToo) {
  const std::vector<ComparisonLine> lines = {Line(0.0, 10), Line(0.1, 8), Line(0.2, 9),
                                             Line(0.3, 10), Line(0.05, 2)};
  EXPECT_EQ(RankLines(lines, 0.9), (std::vector<size_t>{2, 3, 4, 1}));
}

TEST(RankLines, TakesTheLeastDivergenceAfterTheReference) {
  EXPECT_EQ(BestLine({Line(0.0), Line(0.3), Line(0.1), Line(0.2)}, 0.9), 2U);
}

TEST(RankLines, PrefersWhatIsAlikeOnEveryWindow) {
  std::vector<ComparisonLine> lines = {Line(0.0), Line(0.10), Line(0.11), Line(0.14)};
  lines[1].text->divergence.kld_stderr = 0.05;
  lines[2].text->divergence.kld_stderr = 0.02;
  EXPECT_EQ(RankLines(lines, 0.9), (std::vector<size_t>{2, 3, 1}));
}

TEST(RankLines, PassesOverThoseThatLoseNeedles) {
  const std::vector<ComparisonLine> lines = {Line(0.0, 10), Line(0.1, 8), Line(0.2, 9),
                                             Line(0.3, 10)};
  EXPECT_EQ(BestLine(lines, 0.9), 2U);
  EXPECT_EQ(BestLine(lines, 1.0), 3U);
  EXPECT_EQ(BestLine(lines, 0.0), 1U);
}

TEST(RankLines, TakesMostNeedlesWhereNoneFindsEnough) {
  EXPECT_EQ(BestLine({Line(0.0, 10), Line(0.1, 2), Line(0.2, 4), Line(0.15, 4)}, 0.9), 3U);
}

TEST(RankLines, TiesGoToTheEarlierLine) {
  EXPECT_EQ(BestLine({Line(0.0, 1), Line(0.5, 1), Line(0.5, 1)}, 0.9), 1U);
}

std::vector<std::string> Names(const ProfileData* profile, bool behind_rotation = false) {
  std::vector<std::string> names;
  for (const auto& policy : DefaultPolicies(profile, behind_rotation)) names.push_back(policy.name);
  return names;
}

TEST(DefaultPolicies, FollowTheProfile) {
  ProfileData profile;
  const ScorerSpec snapkv;
  profile.curves[snapkv] = {};
  EXPECT_EQ(Names(&profile), (std::vector<std::string>{"uniform/snapkv", "lukv/snapkv"}));
  profile.error_curves[snapkv] = {};
  profile.importance = {1.0F};
  EXPECT_EQ(Names(&profile),
            (std::vector<std::string>{"uniform/snapkv", "lukv/snapkv", "lukv/snapkv/output-error",
                                      "headkv/snapkv"}));
  profile.mixed_curves[snapkv] = {};
  EXPECT_EQ(Names(&profile), (std::vector<std::string>{
                                 "uniform/snapkv@0,1/8,1/4,1", "lukv/snapkv",
                                 "lukv/snapkv/output-error", "lukv-mixed/snapkv/importance",
                                 "lukv-mixed/snapkv/output-error", "headkv/snapkv@0,1/8,1/4,1"}));
  profile.options = {{"tiers", "0,1/2,1"}};
  EXPECT_EQ(Names(&profile)[3], "lukv-mixed/snapkv/importance@0,1/2,1");
  for (const bool behind_rotation : {false, true}) {
    const std::vector<std::string> policies = Names(nullptr, behind_rotation);
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
