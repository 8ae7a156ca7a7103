#include "solver/convex_hull.h"

#include <cmath>

#include "core/base/error.h"

namespace kvc::solver {
namespace {

void CheckPoints(std::span<const CurvePoint> points) {
  for (size_t i = 0; i < points.size(); ++i) {
    KVC_CHECK(std::isfinite(points[i].cost) && std::isfinite(points[i].loss), kNumeric,
              "point {}: expected a finite cost and loss, got ({}, {})", i, points[i].cost,
              points[i].loss);
    KVC_CHECK(i == 0 || points[i].cost > points[i - 1].cost, kBadShape,
              "point {}: expected a cost above {}, got {}", i, points[i - 1].cost, points[i].cost);
  }
}

// True when `middle` lies on or above the chord from `left` to `right`, so that no line supports
// the curve there: slope(left, middle) >= slope(middle, right), multiplied out.
bool IsAboveChord(const CurvePoint& left, const CurvePoint& middle, const CurvePoint& right) {
  return (middle.loss - left.loss) * (right.cost - middle.cost) >=
         (right.loss - middle.loss) * (middle.cost - left.cost);
}

}  // namespace

std::vector<int64_t> LowerHull(std::span<const CurvePoint> points) {
  CheckPoints(points);
  std::vector<int64_t> hull;
  for (size_t i = 0; i < points.size(); ++i) {
    // A dominated point cannot be a vertex, and would bend the chain upwards after the minimum.
    if (!hull.empty() && points[i].loss >= points[hull.back()].loss) continue;
    while (hull.size() >= 2 &&
           IsAboveChord(points[hull[hull.size() - 2]], points[hull.back()], points[i])) {
      hull.pop_back();
    }
    hull.push_back(static_cast<int64_t>(i));
  }
  return hull;
}

}  // namespace kvc::solver
