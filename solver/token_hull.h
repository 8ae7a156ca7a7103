#pragma once
// The lower hull of one token's tiers. It has a few points and is built again wherever it is
// needed, which is faster than storing millions of hulls. Internal to the tier allocator.

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "solver/tier_allocator.h"

namespace kvc::solver {

// The columns of a group's losses: the tiers and their costs.
struct TierColumns {
  int64_t count = 0;                            // K
  std::array<int64_t, kMaxTiers> costs = {};    // of each column
  std::array<uint8_t, kMaxTiers> by_cost = {};  // columns by rising cost

  // Throws kBadShape naming the group.
  TierColumns(const TierGroup& group, size_t index);
};

// The largest number that divides every difference of two costs of a group; 1 where there is none.
[[nodiscard]] int64_t CostUnit(std::span<const TierColumns> groups);

// The vertices from the cheapest tier to the one of least loss. Slopes fall strictly.
struct TokenHull {
  int count = 0;
  std::array<uint8_t, kMaxTiers> column;  // of each vertex
  std::array<float, kMaxTiers> slope;     // loss saved by a byte on the way to the vertex; not [0]
};

// Builds the hull of one token from its losses [K]. Throws kNumeric for a NaN or -infinity. Inline,
// because it is the allocator's inner loop.
inline void BuildHull(const float* losses, const TierColumns& tiers, TokenHull& hull) {
  hull.count = 0;
  for (int64_t i = 0; i < tiers.count; ++i) {
    const uint8_t column = tiers.by_cost[i];
    const float loss = losses[column];
    KVC_CHECK(loss > -std::numeric_limits<float>::infinity(),  // false for a NaN
              kNumeric, "tiers: expected losses that are numbers, got {}", loss);
    if (std::isinf(loss)) continue;
    float slope = 0.0F;
    if (hull.count > 0 && loss >= losses[hull.column[hull.count - 1]]) continue;
    while (hull.count > 0) {
      const uint8_t top = hull.column[hull.count - 1];
      const int64_t cost = tiers.costs[column] - tiers.costs[top];
      slope = cost > 0 ? (losses[top] - loss) / static_cast<float>(cost)
                       : std::numeric_limits<float>::infinity();
      // The vertex has a larger loss at the same cost, or lies above the chord.
      if (cost > 0 && (hull.count == 1 || slope < hull.slope[hull.count - 1])) break;
      --hull.count;
    }
    hull.column[hull.count] = column;
    hull.slope[hull.count] = slope;
    ++hull.count;
  }
}

}  // namespace kvc::solver
