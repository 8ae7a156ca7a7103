#pragma once
// Groups with narrow tiers: chooses the tier of each token of a group, at the end of the prompt and
// when a recent block is full. Tokens share the bytes that the group's tier rows would take at full
// width. Dropping a token costs its score; a tier costs the share of the score that the exact
// change of the output gives (scorers/tier_loss.h). Sinks keep their full width. While decoding a
// token may lose dimensions or be dropped; none regains any. Part of decide.h.

#include <cstdint>

#include "core/cache/cache_spec.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"
#include "runtime/policy/decide.h"

namespace kvc::runtime {

// Rows of a working block: it has `count`, and the candidates for the tiers begin with `first`.
struct PromptRows {
  int64_t first = 0;
  int64_t count = 0;
};

// Turns the working block of group n into tiers of at most `tier_rows` rows' bytes and a recent
// block. scores are those of all its rows, +infinity for those that are never dropped; they are
// used up.
[[nodiscard]] RowMoves DecidePromptTiers(const CacheSpec& spec,
                                         int64_t layer,
                                         int64_t n,
                                         PromptRows rows,
                                         GroupScores& scores,
                                         int64_t tier_rows);

// Moves the recent block's oldest `moving` rows into the tiers, for which all rows compete again
// but those in front of position `seen`, which are dropped. scores are those of the tier rows, then
// of the moving ones; likewise used up.
[[nodiscard]] RowMoves DecideTiers(const CacheSpec& spec,
                                   int64_t layer,
                                   int64_t n,
                                   const HeldRows& group,
                                   GroupScores& scores,
                                   int64_t moving,
                                   int64_t seen,
                                   int64_t tier_rows);

}  // namespace kvc::runtime
