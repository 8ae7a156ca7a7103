#pragma once
// Decisions about what is kept, made on the host from scores alone: at the end of a layer's
// prefill, and when a recent block is full. Nothing here touches or needs a cache's rows.
//
// Sinks and the newest `window` tokens are always kept. Of the others, a group keeps those with the
// highest scores; ties go to the older token. With narrow tiers runtime/policy/tiering.h chooses.
//
// In a layer with a window (CacheGeometry) the prompt is what the layer still sees of it. Rows move
// only when a recent block is full, so each decision also drops the tokens that will have left the
// window by the last query before the next one, sinks among them: what attention reads needs no
// mask. They are as many tokens of the window's far end as the recent block then has free rows.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/cache/cache_spec.h"
#include "runtime/cache/keep_rule.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"

namespace kvc::runtime {

// The score of a token that is never dropped.
inline constexpr float kPinned = std::numeric_limits<float>::infinity();

// A group as a decision sees it. Borrows the positions.
struct HeldRows {
  std::vector<std::vector<float>> tier_scores;  // [tiers][rows]
  int64_t recent = 0;                           // rows of the recent block
  // [tiers][rows] positions; empty without a window.
  std::vector<std::span<const int32_t>> tier_positions = {};
};
[[nodiscard]] std::vector<HeldRows> RowsOf(const LayerCache& layer);

// Returns the indices of the `count` highest scores, ascending.
[[nodiscard]] std::vector<int64_t> SelectTop(std::span<const float> scores, int64_t count);

// Leaves of the working blocks of a layer, which hold a prompt of `length` tokens, what its window
// sees. Where the layer HoldsWindow, that is what it keeps.
[[nodiscard]] LayerMoves DecideWindow(const CacheSpec& spec, int64_t layer, int64_t length);

// Returns true if the number of rows that each group of a layer keeps of a prompt does not depend
// on scores, and neither does anything else that the host decides: no narrow tiers share a group's
// bytes, no method spreads rows over groups, and no window lets rows go by their positions.
[[nodiscard]] bool CountsAreGiven(const CacheSpec& spec, int64_t layer);

// The rule by which a layer without narrow tiers keeps rows of a prompt of `length` tokens.
// tier_rows [n] are the rows that each group's tiers are allocated for.
[[nodiscard]] LayerRule PromptRule(const CacheSpec& spec,
                                   int64_t layer,
                                   int64_t length,
                                   std::span<const int64_t> tier_rows);
// Executes the rule of a group by the scores of all rows of its working block.
[[nodiscard]] RowMoves KeepBest(const KeepRule& rule, std::span<const float> scores);

// Turns the working blocks of a layer, which hold the `length` tokens of a prompt, or those that
// its window sees, into tiers and recent blocks. scores [n] are those of all tokens; sinks count as
// pinned, unless they are out of the window. They are used up. tier_rows [n] are the rows that each
// group's tiers are allocated for.
[[nodiscard]] LayerMoves DecidePrompt(const CacheSpec& spec,
                                      int64_t layer,
                                      int64_t length,
                                      std::vector<GroupScores>& scores,
                                      std::span<const int64_t> tier_rows);

// Makes room in the recent blocks of a layer of a sequence of `length` tokens: their oldest tokens
// compete with those in the tiers. A row of the tiers counts a quarter of its fresh score and three
// quarters of its stored one, and that is stored; rows that move, which have none yet, their fresh
// one. fresh [n] are the scores of all rows, tiers first; they are used up.
[[nodiscard]] LayerMoves DecideReallocation(const CacheSpec& spec,
                                            int64_t layer,
                                            int64_t length,
                                            std::span<const HeldRows> groups,
                                            std::vector<GroupScores>& fresh,
                                            std::span<const int64_t> tier_rows);

// Makes room in recent blocks of a layer that only grow: kFull, or a policy whose decoding appends,
// of a sequence of `length` tokens. With a window they grow up to it, in steps of at most an eighth
// where that takes tokens from the tiers.
[[nodiscard]] LayerMoves DecideGrowth(const CacheSpec& spec,
                                      int64_t layer,
                                      int64_t length,
                                      std::span<const HeldRows> groups);

}  // namespace kvc::runtime
