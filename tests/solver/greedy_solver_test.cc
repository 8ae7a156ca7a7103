#include "solver/greedy_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::solver {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Integer costs and losses, so that sums are exact. Losses need not fall along a curve.
std::vector<Curve> RandomCurves(Rng& rng, int64_t num_curves, int64_t max_points, int64_t losses) {
  std::vector<Curve> curves(static_cast<size_t>(num_curves));
  for (Curve& curve : curves) {
    const int64_t n = 1 + rng.NextBelow(max_points);
    double cost = static_cast<double>(rng.NextBelow(3));
    for (int64_t i = 0; i < n; ++i) {
      curve.push_back({cost, static_cast<double>(rng.NextBelow(losses))});
      cost += 1.0 + static_cast<double>(rng.NextBelow(4));
    }
  }
  return curves;
}

double MinimumCost(const std::vector<Curve>& curves) {
  double sum = 0.0;
  for (const Curve& curve : curves) sum += curve.front().cost;
  return sum;
}

// Least total loss within `budget`, every combination tried.
double ExhaustiveOptimum(const std::vector<Curve>& curves, double budget, size_t first = 0) {
  if (first == curves.size()) return budget >= 0.0 ? 0.0 : kInfinity;
  double best = kInfinity;
  for (const CurvePoint& point : curves[first]) {
    if (point.cost > budget) break;
    best = std::min(best, point.loss + ExhaustiveOptimum(curves, budget - point.cost, first + 1));
  }
  return best;
}

// The same by dynamic programming over integer budgets.
double DynamicProgrammeOptimum(const std::vector<Curve>& curves, int64_t budget) {
  std::vector<double> best(static_cast<size_t>(budget) + 1, 0.0);
  for (const Curve& curve : curves) {
    std::vector<double> next(best.size(), kInfinity);
    for (int64_t b = 0; b <= budget; ++b) {
      for (const CurvePoint& point : curve) {
        const int64_t cost = static_cast<int64_t>(point.cost);
        if (cost <= b) next[b] = std::min(next[b], point.loss + best[b - cost]);
      }
    }
    best = std::move(next);
  }
  return best.back();
}

// Loss of the largest step between hull vertices: bounds the gap.
double LargestIncrement(const std::vector<Curve>& curves) {
  double largest = 0.0;
  for (const Curve& curve : curves) {
    const std::vector<int64_t> hull = LowerHull(curve);
    for (size_t i = 1; i < hull.size(); ++i) {
      largest = std::max(largest, curve[hull[i - 1]].loss - curve[hull[i]].loss);
    }
  }
  return largest;
}

void ExpectConsistent(const std::vector<Curve>& curves, const Allocation& result, double budget) {
  ASSERT_EQ(result.choice.size(), curves.size());
  double loss = 0.0;
  double cost = 0.0;
  for (size_t c = 0; c < curves.size(); ++c) {
    ASSERT_GE(result.choice[c], 0);
    ASSERT_LT(result.choice[c], static_cast<int64_t>(curves[c].size()));
    loss += curves[c][result.choice[c]].loss;
    cost += curves[c][result.choice[c]].cost;
  }
  EXPECT_EQ(result.objective, loss);
  EXPECT_EQ(result.cost, cost);
  EXPECT_LE(cost, budget);
  EXPECT_GE(result.objective, result.bound);
  EXPECT_LE(result.objective - result.bound, LargestIncrement(curves) + 1e-9);
}

TEST(SolveGreedy, CertifiesExhaustiveOptimum) {
  constexpr uint64_t kSeed = 2;
  Rng rng(kSeed);
  int64_t exact = 0;
  constexpr int kTrials = 3000;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<Curve> curves = RandomCurves(rng, 1 + rng.NextBelow(5), 5, 30);
    const double budget = MinimumCost(curves) + static_cast<double>(rng.NextBelow(40));
    const Allocation result = SolveGreedy(curves, budget);
    const double optimum = ExhaustiveOptimum(curves, budget);
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " trial " << trial);
    ExpectConsistent(curves, result, budget);
    ASSERT_LE(optimum, result.objective);
    ASSERT_GE(optimum, result.bound - 1e-9);
    exact += result.objective == optimum ? 1 : 0;
  }
  RecordProperty("exact", static_cast<int>(exact));
  EXPECT_GT(exact, kTrials / 2);  // fill-up makes most small instances optimal
}

TEST(SolveGreedy, CertifiesDynamicProgrammeOptimum) {
  constexpr uint64_t kSeed = 3;
  Rng rng(kSeed);
  double gap = 0.0;
  double excess = 0.0;
  double total = 0.0;
  for (int trial = 0; trial < 40; ++trial) {
    const std::vector<Curve> curves = RandomCurves(rng, 60, 12, 1000);
    const int64_t budget = static_cast<int64_t>(MinimumCost(curves)) + rng.NextBelow(600);
    const Allocation result = SolveGreedy(curves, static_cast<double>(budget));
    const double optimum = DynamicProgrammeOptimum(curves, budget);
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " trial " << trial);
    ExpectConsistent(curves, result, static_cast<double>(budget));
    ASSERT_LE(optimum, result.objective);
    ASSERT_GE(optimum, result.bound - 1e-9);
    gap += result.objective - result.bound;
    excess += result.objective - optimum;
    total += optimum;
  }
  // 60 curves: one split increment among some 200, half of it or less in the mean.
  EXPECT_LT(gap, 0.02 * total);
  EXPECT_LE(excess, gap);
}

TEST(SolveGreedy, TakesSteepestFirst) {
  const std::vector<Curve> curves = {{{0, 10}, {1, 4}, {2, 3}}, {{0, 8}, {2, 0}}};
  const Allocation result = SolveGreedy(curves, 3);  // slopes 6, then 4, then 1
  EXPECT_EQ(result.choice, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(result.objective, 4.0);
  EXPECT_EQ(result.bound, 4.0);
}

TEST(SolveGreedy, FillsUpAfterTheSplit) {
  // The steepest step costs 10 and does not fit in 5; the second curve's does.
  const std::vector<Curve> curves = {{{0, 100}, {10, 0}}, {{0, 10}, {5, 0}}};
  const Allocation result = SolveGreedy(curves, 5);
  EXPECT_EQ(result.choice, (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(result.objective, 100.0);
  EXPECT_EQ(result.bound, 60.0);  // half of the first step
}

TEST(SolveGreedy, FillsUpWithAPointInsideTheSplitStep) {
  // (5, 60) lies above the hull's chord, but it fits.
  const std::vector<Curve> curves = {{{0, 100}, {5, 60}, {10, 0}}};
  const Allocation result = SolveGreedy(curves, 7);
  EXPECT_EQ(result.choice, (std::vector<int64_t>{1}));
  EXPECT_EQ(result.bound, 30.0);
}

TEST(SolveGreedy, EqualSlopesGoByCurveIndex) {
  const std::vector<Curve> curves(4, Curve{{0, 1}, {1, 0}});
  EXPECT_EQ(SolveGreedy(curves, 2).choice, (std::vector<int64_t>{1, 1, 0, 0}));
}

TEST(SolveGreedy, DominatedAndSinglePointsAreLeft) {
  const std::vector<Curve> curves = {{{2, 5}}, {{1, 3}, {2, 3}, {3, 4}}, {{0, 1}, {1, 0}, {2, 0}}};
  const Allocation result = SolveGreedy(curves, 100);
  EXPECT_EQ(result.choice, (std::vector<int64_t>{0, 0, 1}));
  EXPECT_EQ(result.cost, 4.0);
  EXPECT_EQ(result.bound, result.objective);
}

TEST(SolveGreedy, NoCurves) {
  const Allocation result = SolveGreedy({}, 0);
  EXPECT_TRUE(result.choice.empty());
  EXPECT_EQ(result.objective, 0.0);
}

TEST(SolveGreedy, ExactMinimumIsFeasible) {
  const std::vector<Curve> curves = {{{3, 5}, {4, 0}}, {{2, 1}}};
  const Allocation result = SolveGreedy(curves, 5);
  EXPECT_EQ(result.cost, 5.0);
  EXPECT_EQ(result.objective, 6.0);
  EXPECT_EQ(result.bound, 6.0);
}

TEST(SolveGreedy, MoreBudgetNeverHurts) {
  Rng rng(4);
  const std::vector<Curve> curves = RandomCurves(rng, 30, 9, 500);
  double last_bound = kInfinity;
  for (double budget = MinimumCost(curves); budget < 500; budget += 1) {
    const Allocation result = SolveGreedy(curves, budget);
    EXPECT_LE(result.bound, last_bound + 1e-9);
    last_bound = result.bound;
  }
  double best = 0.0;  // the end of the loop affords every curve's best point
  for (const Curve& curve : curves) {
    best += std::ranges::min(curve, {}, &CurvePoint::loss).loss;
  }
  EXPECT_EQ(last_bound, best);
}

TEST(SolveGreedy, RefusesBadInput) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto solve = [](const std::vector<Curve>& curves, double budget) {
    (void)SolveGreedy(curves, budget);
  };
  EXPECT_KVC_ERROR(solve({{{3, 1}}, {{2, 1}, {4, 0}}}, 4.5), kInfeasible, "at least 5, got 4.5");
  EXPECT_KVC_ERROR(solve({{{0, 1}}, {{0, 1}, {1, nan}}}, 9), kNumeric, "curve 1: point 1");
  EXPECT_KVC_ERROR(solve({{{0, 1}}}, nan), kNumeric, "budget: expected a number");
  EXPECT_KVC_ERROR(solve({{}}, 1), kBadShape, "curve 0: expected a point or more");
  EXPECT_KVC_ERROR(solve({{{0, 1}, {0, 0}}}, 1), kBadShape, "curve 0: point 1: expected a cost");
}

}  // namespace
}  // namespace kvc::solver
