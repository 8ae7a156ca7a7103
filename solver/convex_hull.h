#pragma once
// Lower convex hull of a sampled curve (Andrew's monotone chain), the relaxation that makes greedy
// budget allocation optimal (LU-KV, bibliography key [LUKV]; [Sinha1979] for the LP).

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::solver {

// One point of a loss curve: `cost` ascending along a curve.
struct CurvePoint {
  double cost = 0.0;
  double loss = 0.0;
};

// Indices into `points` of the hull's vertices, from the cheapest point to the point of least loss.
// Points that are dominated (costlier and no better) are never vertices. `points` must have
// strictly ascending costs and finite values: throws kNumeric / kBadShape. O(n).
[[nodiscard]] std::vector<int64_t> LowerHull(std::span<const CurvePoint> points);

}  // namespace kvc::solver
