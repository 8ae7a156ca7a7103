// Budgets: never exceeded, never wasted, spread as each method says.

#include "export/budget/budget_plan.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "export/budget/budget_curves.h"
#include "scorers/scorer.h"
#include "tests/export/budget_case.h"
#include "tests/support/expect_error.h"

namespace kvc::budget {
namespace {

int64_t BytesOfOneRowEverywhere(const CacheSpec& spec) {
  int64_t bytes = 0;
  for (const auto& groups : spec.layers) {
    for (const CacheGroup& group : groups) bytes += BytesPerToken(spec, group) + 4;
  }
  return bytes;
}

// Which of a profile's losses is minimised is asked for; what is not there is refused by name.
TEST(BudgetPlan, LossChoosesTheCurves) {
  ProfileData profile = Profile(1);
  budget::PlanRequest request = Request("25%", Method::kLuKv, &profile);
  const budget::BudgetPlan plain = budget::MakeBudgetPlan(Geometry(), request);
  request.policy.loss = budget::CurveLoss::kOutputError;
  try {
    (void)budget::MakeBudgetPlan(Geometry(), request);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("curves of output-error"), std::string::npos);
  }
  profile.error_curves = Profile(2).curves;
  EXPECT_NE(budget::MakeBudgetPlan(Geometry(), request).rows, plain.rows);
  profile.error_curves = profile.curves;
  EXPECT_EQ(budget::MakeBudgetPlan(Geometry(), request).rows, plain.rows);
}

TEST(BudgetPlan, ModelThresholdNeedsOneUnitAndOneSize) {
  budget::PlanRequest request = Request("25%", Method::kAdaModel);
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), request), kUsage,
                   "--scorer output-error");
  request.policy.scorer = ScorerKind::kOutputError;
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), request), kUnsupported,
                   "use --method lukv");
  CacheSpec even = Geometry();
  for (auto& groups : even.layers) {
    for (CacheGroup& group : groups) group.key_width = kHeadWidth;
  }
  EXPECT_EQ(budget::MakeBudgetPlan(even, request).rows,
            budget::MakeBudgetPlan(even, Request("25%", Method::kUniform)).rows);
}

// Where decoding appends, nothing is kept for re-allocation: all bytes go to tokens.
TEST(BudgetPlan, AppendHasNoMarginAndNoRing) {
  budget::PlanRequest request = Request("25%", Method::kUniform);
  const budget::BudgetPlan holds = budget::MakeBudgetPlan(Geometry(), request);
  request.append = true;
  const budget::BudgetPlan appends = budget::MakeBudgetPlan(Geometry(), request);
  EXPECT_GT(holds.spec.margin, 0);
  EXPECT_GT(holds.spec.query_ring, 0);
  EXPECT_EQ(appends.spec.margin, 0);
  EXPECT_EQ(appends.spec.query_ring, 0);
  EXPECT_GE(appends.rows[0][0], holds.rows[0][0]);
  EXPECT_LE(appends.bytes.allocated,
            BudgetBytes(Geometry(), request.budget, appends.reference_length));
}

TEST(BudgetPlan, EveryMethodUsesItsBudgetAndNoMore) {
  const ProfileData profile = Profile(1);
  for (const Method method : {Method::kStreaming, Method::kUniform, Method::kPyramid, Method::kAda,
                              Method::kHeadKv, Method::kLuKv}) {
    for (const CacheSpec& geometry :
         {Geometry(), Geometry(1, 4), Geometry(2, 10), Geometry(4, 8, DType::kF32)}) {
      for (const char* budget : {"6.25%", "25%", "47%", "300tok", "200KB@3000"}) {
        SCOPED_TRACE(std::string(MethodName(method)) + " " + budget);
        const budget::PlanRequest request = Request(budget, method, &profile);
        if (method == Method::kAda && geometry.layers[0].size() == 1) {
          EXPECT_THROW((void)budget::MakeBudgetPlan(geometry, request), Error);
          continue;
        }
        const budget::BudgetPlan plan = budget::MakeBudgetPlan(geometry, request);
        const int64_t bytes = BudgetBytes(geometry, request.budget, plan.reference_length);
        EXPECT_LE(plan.bytes.allocated, bytes);
        EXPECT_EQ(plan.bytes.allocated, PredictBytes(plan.spec, plan.reference_length).allocated);
        const bool all_kept = std::all_of(plan.rows.begin(), plan.rows.end(), [&](const auto& row) {
          return *std::min_element(row.begin(), row.end()) == plan.reference_length;
        });
        if (!all_kept) {
          EXPECT_GT(plan.bytes.allocated + BytesOfOneRowEverywhere(plan.spec), bytes);
        }
        for (const auto& row : plan.rows) {
          EXPECT_GE(*std::min_element(row.begin(), row.end()), MinRows(plan.spec));
        }
      }
    }
  }
}

TEST(BudgetPlan, UniformIsEqualToARow) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kUniform));
  int64_t least = std::numeric_limits<int64_t>::max();
  int64_t most = 0;
  for (const auto& row : plan.rows) {
    for (const int64_t rows : row) {
      least = std::min(least, rows);
      most = std::max(most, rows);
    }
  }
  EXPECT_LE(most - least, 1);
  EXPECT_TRUE(plan.spec.by_share);
  EXPECT_EQ(plan.spec.query_ring, 2);
  EXPECT_EQ(plan.spec.margin, 16);  // a sixteenth of about 900 rows, at most 16
  EXPECT_EQ(plan.spec.scorer, ScorerKind::kSnapKv);
}

TEST(BudgetPlan, SmallBudgetsHaveASmallMargin) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(), Request("72tok", Method::kUniform));
  EXPECT_EQ(plan.spec.margin, 8);
  EXPECT_FALSE(plan.spec.by_share);
}

TEST(BudgetPlan, StreamingScoresByAgeAndKeepsNoQueries) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kStreaming));
  EXPECT_EQ(plan.spec.scorer, ScorerKind::kStreaming);
  EXPECT_EQ(plan.spec.query_ring, 0);
}

TEST(BudgetPlan, PyramidFallsInEqualSteps) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kPyramid));
  const auto base = static_cast<double>(ProtectedRows(plan.spec));
  const double first = static_cast<double>(plan.rows[0][0]) - base;
  const double middle = static_cast<double>(plan.rows[1][0]) - base;
  const double last = static_cast<double>(plan.rows[2][0]) - base;
  EXPECT_NEAR(first - middle, middle - last, 3.0);
  EXPECT_NEAR(last, middle / 20.0, 2.0);  // beta of PyramidKV
}

TEST(BudgetPlan, PyramidStaysWithinTheSequence) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(1, 4), Request("55%", Method::kPyramid));
  EXPECT_EQ(plan.rows[0][0], plan.reference_length);
  EXPECT_LT(plan.rows[2][0], plan.rows[1][0]);
}

TEST(BudgetPlan, HeadKvFollowsImportance) {
  const ProfileData profile = Profile(2);
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(2, 10), Request("20%", Method::kHeadKv, &profile));
  // rows = base + importance * pool, the same two numbers for every group.
  std::vector<std::pair<double, double>> points;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t n = 0; n < 2; ++n) {
      const auto head = static_cast<size_t>(l * kKvHeads + 2 * n);
      points.emplace_back(double{profile.importance[head]} + double{profile.importance[head + 1]},
                          static_cast<double>(plan.rows[l][n]));
    }
  }
  const auto [low, high] = std::minmax_element(points.begin(), points.end());
  const double slope = (high->second - low->second) / (high->first - low->first);
  for (const auto& [importance, rows] : points) {
    EXPECT_NEAR(rows, low->second + slope * (importance - low->first), 2.0);
  }
  const double mean_share = 1.0 / static_cast<double>(points.size());
  const double mean = low->second + slope * (mean_share - low->first);
  const double b = mean - static_cast<double>(ProtectedRows(plan.spec));
  EXPECT_NEAR(slope * mean_share, b / 1.2, 3.0);  // beta of HeadKV
}

TEST(BudgetPlan, TheSmallestBudgetThatIsNamedIsPossible) {
  for (const char* budget : {"0.5%", "5tok", "1KB@2000"}) {
    SCOPED_TRACE(budget);
    std::string least;
    try {
      (void)budget::MakeBudgetPlan(Geometry(), Request(budget, Method::kUniform));
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(ErrorKind::kInfeasible));
      const std::string text = error.what();
      const std::string mark = "expected at least ";
      const size_t begin = text.find(mark) + mark.size();
      least = text.substr(begin, text.find(' ', begin) - begin);
    }
    const budget::BudgetPlan plan =
        budget::MakeBudgetPlan(Geometry(), Request(least, Method::kUniform));
    for (const auto& row : plan.rows) {
      for (const int64_t rows : row) EXPECT_LE(rows, MinRows(plan.spec) + 2);
    }
  }
}

// What decides while decoding has the queries that its scorer asks for: the runtime refuses a
// bundle without them.
TEST(BudgetPlan, EveryScorerGetsTheQueriesThatItNeeds) {
  for (const ScorerKind kind :
       {ScorerKind::kSnapKv, ScorerKind::kExpectedAttention, ScorerKind::kKeyDiff,
        ScorerKind::kKnorm, ScorerKind::kStreaming, ScorerKind::kOutputError}) {
    budget::PlanRequest request = Request("50%", Method::kUniform);
    request.policy.scorer = kind;
    const auto scorer = scorers::Scorer::Create(request.policy.scorer);
    const bool asks = scorer->needs_queries() || scorer->needs_prompt_queries();
    EXPECT_EQ(budget::MakeBudgetPlan(Geometry(), request).spec.query_ring > 0, asks)
        << ScorerName(kind);
  }
}

TEST(BudgetPlan, FullKeepsEverythingOrRefuses) {
  const budget::BudgetPlan plan =
      budget::MakeBudgetPlan(Geometry(4, 16), Request("100%", Method::kFull));
  EXPECT_TRUE(plan.spec.full());
  EXPECT_TRUE(plan.spec.budget.empty());
  EXPECT_EQ(plan.rows[0][0], plan.reference_length);
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), Request("50%", Method::kFull)),
                   kInfeasible, "choose another --method");
  // A latent of the full width, and its positions: more than the original cache.
  const int64_t full_width = kKvHeads * kHeadWidth;
  const budget::BudgetPlan latent =
      budget::MakeBudgetPlan(Geometry(4, full_width), Request("100%", Method::kFull));
  EXPECT_GT(latent.bytes.logical, latent.bytes.full);
}

TEST(BudgetPlan, RefusesWhatIsMissing) {
  const ProfileData profile = Profile(6);
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kLuKv)), kUsage,
                   "--profile");
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kHeadKv)),
                   kUsage, "--profile");
  budget::PlanRequest other_scorer = Request("25%", Method::kLuKv, &profile);
  other_scorer.policy.scorer = ScorerKind::kKnorm;
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), other_scorer), kUsage, "knorm");
  EXPECT_KVC_ERROR(
      (void)budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kLuKvMixed, &profile)),
      kUsage, "curves of tiers");
  ProfileData deeper = profile;
  deeper.num_layers = 5;
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), Request("25%", Method::kLuKv, &deeper)),
                   kBadShape, "5 of 4");
  budget::PlanRequest no_window = Request("25%", Method::kUniform);
  no_window.window = 0;
  EXPECT_KVC_ERROR((void)budget::MakeBudgetPlan(Geometry(), no_window), kUsage, "--window");
}

TEST(HeadShares, AddUpToTheAllocatedRows) {
  const ProfileData profile = Profile(7);
  for (const int64_t heads_of_group : {1, 2, 4}) {
    const budget::BudgetPlan plan = budget::MakeBudgetPlan(Geometry(heads_of_group, 10),
                                                           Request("25%", Method::kLuKv, &profile));
    int64_t bytes = 0;
    const auto shares = budget::HeadShares(plan);
    for (int64_t l = 0; l < kLayers; ++l) {
      bytes += QueryRingBytes(plan.spec, l);
      for (int64_t g = 0; g < kKvHeads; ++g) {
        bytes += shares[l][g].bytes;
        EXPECT_EQ(shares[l][g].tokens, plan.rows[l][g / heads_of_group]);
      }
    }
    EXPECT_EQ(bytes, plan.bytes.allocated);
  }
}

}  // namespace
}  // namespace kvc::budget
