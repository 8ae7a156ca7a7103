#pragma once
// The lower convex hull of a sampled curve (Andrew's monotone chain): the relaxation that makes
// greedy budget allocation optimal ([LUKV]; [Sinha1979] for the LP). A pure function, like the rest
// of solver/: it may be called from several threads.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::solver {

// One point of a loss curve. Costs ascend along a curve.
struct CurvePoint {
  double cost = 0.0;
  double loss = 0.0;
};

// The vertices of the hull as indices into `points`, from the cheapest point to the point of least
// loss. Points that are dominated (costlier and no better) are never vertices. Takes O(n). Throws
// kNumeric for a value that is not finite, kBadShape unless costs ascend strictly.
[[nodiscard]] std::vector<int64_t> LowerHull(std::span<const CurvePoint> points);

}  // namespace kvc::solver
