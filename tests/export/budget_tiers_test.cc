// Plans with tiers narrower than a row, and policies in one text.

#include <algorithm>

#include <gtest/gtest.h>

#include "core/cache/tier_list.h"
#include "export/budget/budget_plan.h"
#include "export/budget/policy_text.h"
#include "tests/runtime/random_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::budget {
namespace {

constexpr int64_t kHeadWidth = 16;

CacheSpec Geometry(int64_t key_width = kHeadWidth) {
  CacheSpec spec;
  spec.key_format = kRowsF16;
  spec.value_format = kRowsF16;
  spec.original_dtype = DType::kF16;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_width = kHeadWidth;
  spec.layers.assign(2, {{key_width, kHeadWidth, {0}, false}, {key_width, kHeadWidth, {1}, false}});
  return spec;
}

// Curves of a head that needs everything and heads that need next to nothing.
ProfileData Profile() {
  ProfileData profile;
  profile.num_layers = 2;
  profile.num_kv_heads = 2;
  profile.tiers = ParseTiers("0,1/8,1/4,1", "");
  for (auto* curves : {&profile.curves, &profile.mixed_curves}) {
    std::vector<float>& losses = (*curves)[ScorerKind::kSnapKv];
    for (int64_t head = 0; head < 4; ++head) {
      const bool needs = (head == 0) == (curves == &profile.mixed_curves);
      for (int64_t i = 0; i <= kCurveIntervals; ++i) {
        const float little = i == 0 ? 1e-3F : 0.0F;
        losses.push_back(needs ? 1.0F - static_cast<float>(i) / kCurveIntervals : little);
      }
    }
  }
  profile.importance.assign(4, 0.25F);
  return profile;
}

budget::PlanRequest Request(Method method, const std::string& tiers = "") {
  budget::PlanRequest request;
  request.budget = ParseBudget("25%", "--budget");
  request.policy.method = method;
  if (!tiers.empty()) request.policy.tiers = ParseTiers(tiers, "--tiers");
  request.bases = testing::RandomBases(Geometry(), 3);
  return request;
}

TEST(BudgetTiers, EveryMethodStaysWithinTheBudget) {
  const ProfileData profile = Profile();
  for (const Method method : {Method::kUniform, Method::kPyramid, Method::kAda, Method::kHeadKv,
                              Method::kLuKv, Method::kLuKvMixed}) {
    for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
      budget::PlanRequest request = Request(method, "0,1/8,1/4,1");
      request.profile = &profile;
      request.policy.basis = basis;
      const budget::BudgetPlan plan = budget::MakeBudgetPlan(Geometry(), request);
      EXPECT_TRUE(plan.spec.has_narrow_tiers());
      EXPECT_LE(plan.bytes.allocated, BudgetBytes(Geometry(), request.budget, 4096));
      EXPECT_GT(plan.bytes.allocated, 0.98 * BudgetBytes(Geometry(), request.budget, 4096));
      int64_t bytes = 0;
      for (const auto& layer : budget::HeadShares(plan)) {
        for (const budget::HeadShare& share : layer) bytes += share.bytes;
      }
      EXPECT_LE(bytes, plan.bytes.allocated);
    }
  }
}

TEST(BudgetTiers, MixedCurvesDecideAndHaveTiersByDefault) {
  const ProfileData profile = Profile();
  budget::PlanRequest request = Request(Method::kLuKvMixed);
  request.profile = &profile;
  request.policy.loss = budget::CurveLoss::kOutputError;
  const budget::BudgetPlan mixed = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_EQ(mixed.spec.tiers.size(), 3U);
  EXPECT_GT(mixed.rows[0][0], 2 * mixed.rows[0][1]);
  request.policy.method = Method::kLuKv;
  request.policy.loss = budget::CurveLoss::kImportance;
  const budget::BudgetPlan plain = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_EQ(plain.spec.tiers.size(), 1U);
  EXPECT_LT(2 * plain.rows[0][0], plain.rows[0][1]);
}

// Heads share the budget by the profile's tiers, and tokens are in those of the request.
TEST(BudgetTiers, OtherTiersThanTheProfilesAreSaid) {
  const ProfileData profile = Profile();
  budget::PlanRequest request = Request(Method::kLuKvMixed);
  request.profile = &profile;
  const budget::BudgetPlan own = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_TRUE(own.warnings.empty());
  request.policy.tiers = ParseTiers("0,1/2,1", "--tiers");
  const budget::BudgetPlan other = budget::MakeBudgetPlan(Geometry(), request);
  ASSERT_EQ(other.warnings.size(), 1u);
  EXPECT_NE(other.warnings[0].find("the same --tiers"), std::string::npos);
  EXPECT_EQ(other.spec.tiers, request.policy.tiers);
  EXPECT_GT(other.rows[0][0], 2 * other.rows[0][1]);
  EXPECT_LE(other.bytes.allocated, BudgetBytes(Geometry(), request.budget, 4096));
}

// Two heads of one layer: the first has the larger error, the second holds more importance.
TEST(BudgetTiers, ImportanceScalesTheCurvesWithTiers) {
  ProfileData profile = Profile();
  std::vector<float>& mixed = profile.mixed_curves[ScorerKind::kSnapKv];
  std::vector<float>& curves = profile.curves[ScorerKind::kSnapKv];
  for (int64_t head = 0; head < 4; ++head) {
    for (int64_t i = 0; i <= kCurveIntervals; ++i) {
      const float dropped = 1.0F - static_cast<float>(i) / kCurveIntervals;
      const size_t at = head * (kCurveIntervals + 1) + i;
      mixed[at] = (head == 0 ? 9.0F : 1.0F) * dropped * dropped;
      curves[at] = (head == 1 ? 9.0F : 1.0F) * dropped;
    }
  }
  budget::PlanRequest request = Request(Method::kLuKvMixed);
  request.profile = &profile;
  request.policy.loss = budget::CurveLoss::kOutputError;
  const budget::BudgetPlan error = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_GT(error.rows[0][0], 2 * error.rows[0][1]);
  request.policy.loss = budget::CurveLoss::kImportance;
  const budget::BudgetPlan importance = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_GT(importance.rows[0][1], 2 * importance.rows[0][0]);
  EXPECT_NEAR(importance.rows[0][1], error.rows[0][0], 2.0);
}

TEST(BudgetTiers, LossAndWindowFollowTiersInFewBits) {
  const ScorerSpec by_prompt(ScorerKind::kOutputError, {.prompt = 1024});
  budget::PlanRequest request = Request(Method::kLuKvMixed, "1x8,1x4,1x2");
  request.policy.scorer = by_prompt;
  EXPECT_EQ(budget::LossOf(request), budget::CurveLoss::kOutputError);
  EXPECT_EQ(budget::WindowOf(request), budget::kNarrowWindow);
  request.append = true;
  EXPECT_EQ(budget::WindowOf(request), budget::kAppendWindow);
  request.append = false;
  request.policy.scorer = ScorerKind::kOutputError;  // asks the window's queries alone
  EXPECT_EQ(budget::WindowOf(request), budget::kWindow);
  request.policy.method = Method::kUniform;
  EXPECT_EQ(budget::LossOf(request), budget::CurveLoss::kImportance);
  request = Request(Method::kLuKvMixed, "0,1/8,1");
  request.policy.scorer = by_prompt;
  EXPECT_EQ(budget::LossOf(request), budget::CurveLoss::kImportance);
  EXPECT_EQ(budget::WindowOf(request), budget::kWindow);
  // What is said goes first.
  request.policy.loss = budget::CurveLoss::kOutputError;
  request.window = 7;
  EXPECT_EQ(budget::LossOf(request), budget::CurveLoss::kOutputError);
  EXPECT_EQ(budget::WindowOf(request), 7);
}

TEST(BudgetTiers, RefusesWhatMakesNoSense) {
  ProfileData profile = Profile();
  const auto plan = [&](budget::PlanRequest request, const CacheSpec& geometry = Geometry()) {
    request.profile = &profile;
    (void)budget::MakeBudgetPlan(geometry, request);
  };
  EXPECT_KVC_ERROR(plan(Request(Method::kFull, "0,1/8,1")), kUsage, "--method full");
  EXPECT_KVC_ERROR(plan(Request(Method::kStreaming, "0,1/8,1")), kUsage, "--method streaming");
  EXPECT_KVC_ERROR(plan(Request(Method::kUniform, "0,1/8,1"), Geometry(4)), kBadInput,
                   "got 0.125 of keys 4");
  EXPECT_KVC_ERROR(plan(Request(Method::kUniform, "0,1/8,1"), Geometry(8)), kBadShape, "");
  budget::PlanRequest request = Request(Method::kUniform, "0,1/8,1");
  request.policy.scorer = ScorerKind::kKeyDiff;
  EXPECT_KVC_ERROR(plan(request), kUnsupported, "got keydiff");
  request = Request(Method::kUniform, "0,1/8,1");
  request.bases = nullptr;
  EXPECT_KVC_ERROR(plan(request), kUsage, "use --basis prompt");
  request = Request(Method::kLuKvMixed);
  request.policy.scorer = ScorerKind::kOutputError;
  EXPECT_KVC_ERROR(plan(request), kUsage, "curves of tiers for the scorer output-error");
  request = Request(Method::kUniform, "0,1/8,1");
  request.budget = ParseBudget("0.5%", "--budget");
  EXPECT_KVC_ERROR(plan(request), kInfeasible, "expected at least");
}

TEST(PolicyText, SaysEverything) {
  const budget::NamedPolicy named = budget::ParsePolicy("lukv/snapkv/output-error");
  EXPECT_EQ(named.name, "lukv/snapkv/output-error");
  EXPECT_EQ(named.policy.method, Method::kLuKv);
  EXPECT_EQ(named.policy.scorer.kind, ScorerKind::kSnapKv);
  EXPECT_EQ(named.policy.loss, budget::CurveLoss::kOutputError);
  EXPECT_TRUE(named.policy.tiers.empty());
  const budget::Policy policy =
      budget::ParsePolicy("uniform/output-error:pool=3@prompt:key=0,1/4,1;value=0,1/2,1").policy;
  EXPECT_EQ(policy.method, Method::kUniform);
  EXPECT_EQ(ToString(policy.scorer), "output-error:pool=3");
  EXPECT_FALSE(policy.loss.has_value());
  EXPECT_EQ(policy.tiers.size(), 4U);
  EXPECT_EQ(policy.basis, TierBasis::kPrompt);
  const budget::Policy plain = budget::ParsePolicy("uniform@0,1/8,1").policy;
  EXPECT_EQ(plain.tiers.size(), 2U);
  EXPECT_EQ(plain.basis, TierBasis::kOffline);
  EXPECT_FALSE(plain.recent_format.has_value());
  const budget::Policy recent = budget::ParsePolicy("lukv-mixed@1x8,1x4,1x2+x4").policy;
  EXPECT_EQ(recent.tiers.size(), 4U);
  EXPECT_EQ(recent.recent_format, kRowsX4);
  EXPECT_KVC_ERROR((void)budget::ParsePolicy("lukv-mixed@1x8+x3y"), kUsage, "x3y");
  EXPECT_KVC_ERROR((void)budget::ParsePolicy("uniform@0,1/8"), kUsage, "--policy");
  EXPECT_KVC_ERROR((void)budget::ParsePolicy("unifrom@0,1"), kUsage, "expected one of");
}

}  // namespace
}  // namespace kvc::budget
