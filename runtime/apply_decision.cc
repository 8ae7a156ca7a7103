#include "runtime/apply_decision.h"

#include <span>
#include <vector>

#include "runtime/backend.h"

namespace kvc::runtime {

void ApplyDecision(Backend& backend,
                   const LayerMoves& moves,
                   int64_t layer,
                   int64_t length,
                   SequenceCache& cache) {
  if (cache.spec().AttentionWindow(layer) == 0) return backend.Apply(moves, layer, cache);
  const std::vector<GroupCache>& groups = cache.layer(layer).groups;
  std::vector<std::vector<std::vector<int32_t>>> before;  // [n][tiers][rows]
  for (const GroupCache& group : groups) {
    auto& tiers = before.emplace_back();
    for (size_t t = 0; t < group.tiers.size(); ++t) {
      const std::span<const int32_t> positions = group.PositionsOf(t);
      tiers.emplace_back(positions.begin(), positions.end());
    }
  }
  const int64_t first_recent = length - groups[0].recent.rows();
  backend.Apply(moves, layer, cache);
  cache.SetTierPositions(layer, moves, before, first_recent);
}

}  // namespace kvc::runtime
