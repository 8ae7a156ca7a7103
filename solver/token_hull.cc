#include "solver/token_hull.h"

#include <algorithm>

namespace kvc::solver {

TierColumns::TierColumns(const TierGroup& group, size_t index) : count(std::ssize(group.costs)) {
  KVC_CHECK(count >= 1 && count <= kMaxTiers, kBadShape,
            "tiers: group {}: expected 1 to {} tiers, got {}", index, kMaxTiers, count);
  KVC_CHECK(std::ssize(group.losses) == group.num_tokens * count, kBadShape,
            "tiers: group {}: expected {} losses for {} tokens, got {}", index,
            group.num_tokens * count, group.num_tokens, group.losses.size());
  std::ranges::copy(group.costs, costs.begin());
  std::iota(by_cost.begin(), by_cost.begin() + count, uint8_t{0});
  std::stable_sort(by_cost.begin(), by_cost.begin() + count,
                   [&](uint8_t a, uint8_t b) { return costs[a] < costs[b]; });
}

int64_t CostUnit(std::span<const TierColumns> groups) {
  int64_t unit = 0;
  for (const TierColumns& tiers : groups) {
    for (int64_t t = 1; t < tiers.count; ++t) {
      unit = std::gcd(unit, tiers.costs[t] - tiers.costs[0]);
    }
  }
  return std::max<int64_t>(unit, 1);
}

}  // namespace kvc::solver
