#pragma once
// Groups with narrow tiers: which tier each token of a group gets, at the end of the prompt and
// when a recent block is full. Tokens share the bytes that the group's tier rows would take at full
// width; dropping one costs its score, a tier the share of it that the exact change of the output
// says (scorers/tier_loss.h). Sinks keep their full width. While decoding a token may lose
// dimensions or be dropped; none gets any back.

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cache/kv_cache.h"

namespace kvc::runtime {

// Turns the working block of group n, which holds the whole prompt, into tiers of at most
// `tier_rows` rows' bytes and a recent block, in coordinates, and frees it. Scores: of all tokens,
// +infinity for those that are never dropped.
void BuildTiers(
    SequenceCache& cache, int64_t layer, int64_t n, GroupScores& scores, int64_t tier_rows);

// Moves the recent block's oldest `moving` rows into the tiers, for which all compete anew. Scores:
// of the tier rows, then of the moving ones; likewise.
void ReallocateTiers(SequenceCache& cache,
                     int64_t layer,
                     int64_t n,
                     GroupScores& scores,
                     int64_t moving,
                     int64_t tier_rows);

}  // namespace kvc::runtime
