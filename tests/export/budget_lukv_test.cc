// LU-KV's plans against other methods' and against all choices of three layers.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "export/budget/budget_plan.h"
#include "tests/export/budget_case.h"

namespace kvc::budget {
namespace {

// The sum of at(curve, position) over all heads: a plan's share of the evictable rows as a position
// on the grid of the head's curve.
template <class CurveAt>
double SumOfCurves(const ProfileData& profile, const BudgetPlan& plan, const CurveAt& at) {
  const auto evictable =
      static_cast<double>(plan.reference_length - plan.spec.sinks - plan.spec.window);
  double loss = 0.0;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (size_t n = 0; n < plan.rows[l].size(); ++n) {
      const auto kept = static_cast<double>(plan.rows[l][n] - ProtectedRows(plan.spec));
      const double position = std::min(kept / evictable, 1.0) * kCurveIntervals;
      for (const int64_t head : plan.spec.layers[l][n].heads) {
        const int64_t first = (l * kKvHeads + head) * (kCurveIntervals + 1);
        loss += at(profile.curves.at(ScorerKind::kSnapKv).data() + first, position);
      }
    }
  }
  return loss;
}

// The loss of a plan whose rows are points of the grid.
double LossAtPoints(const ProfileData& profile, const BudgetPlan& plan) {
  return SumOfCurves(profile, plan, [](const float* curve, double position) {
    return double{curve[std::lround(position)]};
  });
}

// The loss of a plan with any rows, between the points of the curves.
double LossBetween(const ProfileData& profile, const BudgetPlan& plan) {
  return SumOfCurves(profile, plan, [](const float* curve, double position) {
    const auto point = std::min<int64_t>(kCurveIntervals - 1, static_cast<int64_t>(position));
    return std::lerp(double{curve[point]}, double{curve[point + 1]},
                     position - static_cast<double>(point));
  });
}

TEST(LuKvPlan, LosesLessThanTheOthersAndMoreThanItsBound) {
  for (const uint64_t seed : {3, 4, 5}) {
    const ProfileData profile = Profile(seed);
    for (const int64_t heads_of_group : {1, 2, 4}) {
      const CacheSpec geometry = Geometry(heads_of_group, 10);
      const BudgetPlan lukv = MakeBudgetPlan(geometry, Request("20%", Method::kLuKv, &profile));
      const double loss = LossAtPoints(profile, lukv);
      EXPECT_LE(loss, lukv.solver.objective + 1e-9);
      EXPECT_GE(loss, lukv.solver.bound - 0.05);  // single rows between the grid's points
      for (const Method method : {Method::kUniform, Method::kPyramid, Method::kHeadKv}) {
        const BudgetPlan other = MakeBudgetPlan(geometry, Request("20%", method, &profile));
        EXPECT_LT(loss, LossBetween(profile, other)) << MethodName(method) << " seed " << seed;
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

TEST(LuKvPlan, BoundsHoldTheOptimum) {
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

}  // namespace
}  // namespace kvc::budget
