#pragma once
// Groups with narrow tiers: which tier each token of a group gets, at the end of the prompt and
// when a recent block is full. Tokens share the bytes that the group's tier rows would take at full
// width; dropping one costs its score, a tier the share of it that the exact change of the output
// says (scorers/tier_loss.h). Sinks keep their full width. While decoding a token may lose
// dimensions or be dropped; none gets any back. Part of decide.h.

#include <cstdint>

#include "core/cache/cache_spec.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"
#include "runtime/policy/decide.h"

namespace kvc::runtime {

// Turns the working block of group n, which holds a prompt of `length` tokens, into tiers of at
// most `tier_rows` rows' bytes and a recent block. scores: of all tokens, +infinity for those that
// are never dropped; used up.
[[nodiscard]] RowMoves DecidePromptTiers(const CacheSpec& spec,
                                         int64_t layer,
                                         int64_t n,
                                         int64_t length,
                                         GroupScores& scores,
                                         int64_t tier_rows);

// Moves the recent block's oldest `moving` rows into the tiers, for which all compete anew. scores:
// of the tier rows, then of the moving ones; likewise.
[[nodiscard]] RowMoves DecideTiers(const CacheSpec& spec,
                                   int64_t layer,
                                   int64_t n,
                                   const HeldRows& group,
                                   GroupScores& scores,
                                   int64_t moving,
                                   int64_t tier_rows);

}  // namespace kvc::runtime
