#pragma once
// The decisions on one layer of a cache, made and executed in the host's memory, without a session.

#include <memory>
#include <vector>

#include "runtime/cpu/apply_moves.h"
#include "runtime/cpu/scoring.h"
#include "runtime/policy/decide.h"
#include "runtime/policy/spread.h"

namespace kvc::runtime {

// The end of a prompt whose rows lie in the working blocks.
inline void CompressLayer(const LayerScoring& scoring, SequenceCache& cache) {
  const int64_t layer = scoring.attention->layer;
  const int64_t length = cache.layer(layer).groups[0].recent.rows();
  if (cache.spec().has_narrow_tiers()) cache.MakeCoordinates(layer);
  std::vector<GroupScores> scores = ScoreLayer(scoring, cache.spec(), cache.layer(layer));
  const std::vector<int64_t> rows = TierRows(cache, layer, length);
  ApplyMoves(DecidePrompt(cache.spec(), layer, length, scores, rows), layer, cache);
}

// Room in full recent blocks.
inline void ReallocateLayer(const LayerScoring& scoring, SequenceCache& cache) {
  const int64_t layer = scoring.attention->layer;
  std::vector<GroupScores> fresh = ScoreLayer(scoring, cache.spec(), cache.layer(layer));
  const std::vector<int64_t> rows = TierRows(cache, layer, cache.length());
  ApplyMoves(DecideReallocation(cache.spec(), layer, cache.length(), RowsOf(cache.layer(layer)),
                                fresh, rows),
             layer, cache);
}

}  // namespace kvc::runtime
