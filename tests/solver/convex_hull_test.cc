#include "solver/convex_hull.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::solver {
namespace {

// A point is a vertex when nothing cheaper is as good, and no chord between two other points (or
// level line to the right of a better one) runs on or below it. Integers, so exact. O(n^3).
std::vector<int64_t> BruteForceHull(const std::vector<CurvePoint>& points) {
  std::vector<int64_t> hull;
  const int64_t n = static_cast<int64_t>(points.size());
  for (int64_t i = 0; i < n; ++i) {
    bool is_vertex = true;
    for (int64_t a = 0; a < i; ++a) {
      if (points[a].loss <= points[i].loss) is_vertex = false;
      for (int64_t b = i + 1; b < n; ++b) {
        const double width = points[b].cost - points[a].cost;
        const double chord_times_width = points[a].loss * (points[b].cost - points[i].cost) +
                                         points[b].loss * (points[i].cost - points[a].cost);
        if (chord_times_width <= points[i].loss * width) is_vertex = false;
      }
    }
    if (is_vertex) hull.push_back(i);
  }
  return hull;
}

TEST(LowerHull, EqualsBruteForceOnIntegerCurves) {
  constexpr uint64_t kSeed = 1;
  Rng rng(kSeed);
  for (int trial = 0; trial < 20000; ++trial) {
    const int64_t n = 1 + rng.NextBelow(12);
    // Few distinct losses give ties, collinear and dominated points.
    const int64_t range = trial % 2 == 0 ? 5 : 100;
    std::vector<CurvePoint> points;
    double cost = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      cost += 1.0 + static_cast<double>(rng.NextBelow(3));
      points.push_back({cost, static_cast<double>(rng.NextBelow(range))});
    }
    ASSERT_EQ(LowerHull(points), BruteForceHull(points)) << "seed " << kSeed << " trial " << trial;
  }
}

TEST(LowerHull, ConvexCurveKeepsEveryPoint) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 129; ++i) points.push_back({i * 1.0, 1.0 / (1 + i)});
  EXPECT_EQ(LowerHull(points).size(), points.size());
}

TEST(LowerHull, EmptyAndSingle) {
  EXPECT_TRUE(LowerHull({}).empty());
  const std::vector<CurvePoint> one = {{3.0, 7.0}};
  EXPECT_EQ(LowerHull(one), std::vector<int64_t>{0});
}

TEST(LowerHull, CollinearPointsAreNoVertices) {
  const std::vector<CurvePoint> points = {{0, 4}, {1, 3}, {2, 2}, {3, 1}};
  EXPECT_EQ(LowerHull(points), (std::vector<int64_t>{0, 3}));
}

TEST(LowerHull, DominatedPointsAreNoVertices) {
  const std::vector<CurvePoint> rising = {{0, 1}, {1, 2}, {2, 1}};
  EXPECT_EQ(LowerHull(rising), std::vector<int64_t>{0});
  const std::vector<CurvePoint> flat_end = {{0, 4}, {1, 0}, {2, 0}, {3, 1}};
  EXPECT_EQ(LowerHull(flat_end), (std::vector<int64_t>{0, 1}));
}

TEST(LowerHull, RefusesNanAndDisorder) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const auto hull = [](const std::vector<CurvePoint>& points) { (void)LowerHull(points); };
  EXPECT_KVC_ERROR(hull({{0, nan}}), kNumeric, "point 0: expected a finite cost and loss");
  EXPECT_KVC_ERROR(hull({{0, 1}, {nan, 0}}), kNumeric, "point 1: expected a finite cost and loss");
  EXPECT_KVC_ERROR(hull({{0, inf}, {1, 0}}), kNumeric, "got (0, inf)");
  EXPECT_KVC_ERROR(hull({{1, 1}, {1, 0}}), kBadShape, "point 1: expected a cost above 1, got 1");
  EXPECT_KVC_ERROR(hull({{1, 1}, {0, 0}}), kBadShape, "point 1: expected a cost above 1, got 0");
}

}  // namespace
}  // namespace kvc::solver
