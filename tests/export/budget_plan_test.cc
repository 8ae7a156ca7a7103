// Budgets: never exceeded, never wasted, spread as each method says.

#include "export/budget/budget_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "export/budget/budget_curves.h"
#include "scorers/scorer.h"
#include "tests/support/expect_error.h"

namespace kvc::budget {
namespace {

constexpr int64_t kLayers = 3;
constexpr int64_t kKvHeads = 4;
constexpr int64_t kHeadWidth = 16;

// `heads_of_group` kv heads share a key of width `key_width`; more than one: a latent.
CacheSpec Geometry(int64_t heads_of_group = 1,
                   int64_t key_width = kHeadWidth,
                   DType dtype = DType::kF16) {
  CacheSpec spec;
  spec.key_format = RowFormatOf(dtype);
  spec.value_format = RowFormatOf(dtype);
  spec.original_dtype = dtype;
  spec.num_heads = 2 * kKvHeads;
  spec.num_kv_heads = kKvHeads;
  spec.head_width = kHeadWidth;
  for (int64_t l = 0; l < kLayers; ++l) {
    std::vector<CacheGroup> groups;
    for (int64_t first = 0; first < kKvHeads; first += heads_of_group) {
      CacheGroup group;
      group.key_width = key_width + 2 * l;  // ragged over the layers
      group.value_width = kHeadWidth;
      for (int64_t i = 0; i < heads_of_group; ++i) group.heads.push_back(first + i);
      group.keeps_positions = heads_of_group > 1;
      groups.push_back(group);
    }
    spec.layers.push_back(groups);
  }
  return spec;
}

// Curves that fall at different rates, with the wiggles that make hulls necessary.
ProfileData Profile(uint64_t seed) {
  Rng rng(seed);
  ProfileData profile;
  profile.num_layers = kLayers;
  profile.num_kv_heads = kKvHeads;
  std::vector<float>& curves = profile.curves[ScorerKind::kSnapKv];
  double total = 0.0;
  for (int64_t head = 0; head < kLayers * kKvHeads; ++head) {
    const double rate = 0.5 + 8.0 * rng.NextDouble();
    double last = 1.0;
    for (int64_t i = 0; i <= kCurveIntervals; ++i) {
      const double share = static_cast<double>(i) / kCurveIntervals;
      const double value = (1.0 - share) * std::exp(-rate * share) * (0.8 + 0.2 * rng.NextDouble());
      last = std::min(last, value);
      curves.push_back(static_cast<float>(last));
    }
    profile.importance.push_back(static_cast<float>(rng.NextDouble()));
    total += static_cast<double>(profile.importance.back());
  }
  for (float& value : profile.importance) value = static_cast<float>(double{value} / total);
  return profile;
}

budget::PlanRequest Request(const std::string& budget,
                            Method method,
                            const ProfileData* profile = nullptr) {
  budget::PlanRequest request;
  request.budget = ParseBudget(budget, "--budget");
  request.policy.method = method;
  request.profile = profile;
  return request;
}

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
  EXPECT_EQ(plan.spec.query_ring, 8);
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

double LossAt(const ProfileData& profile, const budget::BudgetPlan& plan) {
  const auto evictable =
      static_cast<double>(plan.reference_length - plan.spec.sinks - plan.spec.window);
  double loss = 0.0;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (size_t n = 0; n < plan.rows[l].size(); ++n) {
      const auto kept = static_cast<double>(plan.rows[l][n] - ProtectedRows(plan.spec));
      const auto point = std::min<int64_t>(
          kCurveIntervals, static_cast<int64_t>(kept / evictable * kCurveIntervals + 0.5));
      for (const int64_t head : plan.spec.layers[l][n].heads) {
        const int64_t first = (l * kKvHeads + head) * (kCurveIntervals + 1);
        loss += double{profile.curves.at(ScorerKind::kSnapKv)[static_cast<size_t>(first + point)]};
      }
    }
  }
  return loss;
}

TEST(BudgetPlan, LuKvLosesLessThanTheOthersAndMoreThanItsBound) {
  for (const uint64_t seed : {3, 4, 5}) {
    const ProfileData profile = Profile(seed);
    for (const int64_t heads_of_group : {1, 2, 4}) {
      const CacheSpec geometry = Geometry(heads_of_group, 10);
      const budget::BudgetPlan lukv =
          budget::MakeBudgetPlan(geometry, Request("20%", Method::kLuKv, &profile));
      const double loss = LossAt(profile, lukv);
      EXPECT_LE(loss, lukv.solver.objective + 1e-9);
      EXPECT_GE(loss, lukv.solver.bound - 0.05);  // single rows between the grid's points
      for (const Method method : {Method::kUniform, Method::kPyramid, Method::kHeadKv}) {
        const budget::BudgetPlan other =
            budget::MakeBudgetPlan(geometry, Request("20%", method, &profile));
        EXPECT_LT(loss, LossAt(profile, other)) << MethodName(method) << " seed " << seed;
      }
    }
  }
}

// The points of a group's curve that the solver may choose, for a group that holds a whole layer.
struct LayerPoint {
  int64_t bytes = 0;
  double loss = 0.0;
};
std::vector<LayerPoint> PointsOf(const CacheSpec& spec,
                                 const ProfileData& profile,
                                 int64_t layer,
                                 int64_t length) {
  const std::vector<float>& curves = profile.curves.at(ScorerKind::kSnapKv);
  const int64_t evictable = length - spec.sinks - spec.window;
  std::vector<LayerPoint> points;
  for (int64_t i = 0; i <= kCurveIntervals; ++i) {
    const int64_t kept = std::llround(static_cast<double>(i * evictable) / kCurveIntervals);
    const int64_t rows = std::min(length, std::max(MinRows(spec), ProtectedRows(spec) + kept));
    LayerPoint point{GroupBytes(spec, layer, spec.layers[layer][0], rows, length), 0.0};
    for (int64_t head = 0; head < kKvHeads; ++head) {
      const int64_t at = (layer * kKvHeads + head) * (kCurveIntervals + 1) + i;
      point.loss += double{curves[static_cast<size_t>(at)]};
    }
    points.push_back(point);
  }
  return points;
}

TEST(BudgetPlan, LuKvsBoundsHoldTheOptimum) {
  static_assert(kLayers == 3);
  for (const uint64_t seed : {6, 7}) {
    const ProfileData profile = Profile(seed);
    const PlanRequest request = Request("30%", Method::kLuKv, &profile);
    const BudgetPlan plan = MakeBudgetPlan(Geometry(kKvHeads, 10), request);
    const CacheSpec& spec = plan.spec;
    int64_t bytes = BudgetBytes(spec, request.budget, plan.reference_length);
    std::vector<std::vector<LayerPoint>> points;
    for (int64_t l = 0; l < kLayers; ++l) {
      bytes -= QueryRingBytes(spec, l);
      points.push_back(PointsOf(spec, profile, l, plan.reference_length));
    }
    double optimum = std::numeric_limits<double>::infinity();
    for (const LayerPoint& a : points[0]) {
      for (const LayerPoint& b : points[1]) {
        for (const LayerPoint& c : points[2]) {
          if (a.bytes + b.bytes + c.bytes <= bytes) {
            optimum = std::min(optimum, a.loss + b.loss + c.loss);
          }
        }
      }
    }
    EXPECT_LE(plan.solver.bound, optimum + 1e-9);
    EXPECT_GE(plan.solver.objective, optimum - 1e-9);
    EXPECT_DOUBLE_EQ(plan.solver.gap, plan.solver.objective - plan.solver.bound);
    // The convex relaxation is tight to a step of one curve.
    EXPECT_LT(plan.solver.gap, 0.1 * optimum) << "optimum " << optimum;
  }
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
