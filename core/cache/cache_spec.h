#pragma once
// A compressed cache, its geometry (cache_geometry.h), policy (cache_policy.h) and bases
// (cache_bases.h) together, and the arithmetic of its bytes. The only home of these formulas: the
// exporter predicts with them what the runtime then allocates.
//
// A layer's cache is a list of groups. A group holds, for each kept token, one key row (of its key
// width) and one value row for each of its kv heads; the heads of a group keep the same tokens
// (a latent shared by several heads is kept or dropped for all of them together). With every layout
// but kLatent a group is one kv head.
//
// Rows of a group, in storage order:
//   tiers   tokens that were chosen, sorted by tier; each tier a dense [rows, width] block
//   recent  the newest tokens at full width, appended in O(1); `window + margin` rows, in a format
//           of their own where the policy says so. When it is full, its `margin` oldest tokens are
//           re-allocated into the tiers.
//
// With tiers narrower than a row the group has as many bytes for its tiers as its rows of full
// width, in the cache's formats, would take, and spends them on more tokens of fewer dimensions or
// bits. Keys and values are then
// stored in coordinates whose prefixes approximate them best (core/cache/cache_bases.h).
//
// Beside its rows a group with a budget holds one bf16 score for each tier row (re-allocation
// compares new tokens with it), and with kLatent one int32 position for each row (the rotation is
// applied at use). In a layer with a window every row of the tiers has such a position, because its
// token leaves the window. A layer with a budget holds its last `query_ring` queries [ring, H, D]
// in float, and with TierBasis::kPrompt the coordinates that were found in the prompt. All of it
// counts: see PredictBytes.

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/sizes.h"
#include "core/cache/cache_geometry.h"
#include "core/cache/cache_policy.h"

namespace kvc {

struct LayerBases;  // core/cache/cache_bases.h

struct CacheSpec : CacheGeometry, CachePolicy {
  // kOffline, [L]: not part of the manifest's JSON. Shared: every policy of a bundle points to the
  // bundle's, which may be gone before a sequence is.
  std::shared_ptr<const std::vector<LayerBases>> bases;
};

// Throws kBadInput, naming the tier, unless the tiers are at most 31, begin with full width in the
// cache's formats, and keep a dimension or more of every key and value, and one of them keeps all
// in the recent rows' own format; kUnsupported for a format without a name, for formats with steps
// in a prompt's basis, and for a mixture of the recent rows or of some of a row's dimensions.
void CheckTiers(const CacheSpec& spec);

// The first tier that stores rows as the recent block does: CheckTiers demands one. tiers.size()
// where there is none.
[[nodiscard]] int64_t RecentTier(const CacheSpec& spec);

// The same geometry with every token kept.
[[nodiscard]] CacheSpec FullCache(CacheSpec spec);

// Formats of a tier's rows; tier -1: of the recent block's. A prompt's working block has the
// cache's.
[[nodiscard]] RowFormat KeyFormat(const CacheSpec& spec, int64_t tier);
[[nodiscard]] RowFormat ValueFormat(const CacheSpec& spec, int64_t tier);

// The recent block's window + margin rows in rows of full width that take as many bytes or a little
// more: as many, unless the recent block has a format of its own. The largest of all groups.
[[nodiscard]] int64_t RecentWorth(const CacheSpec& spec);

// The smallest number of rows a budgeted group works with: sinks + 1 + RecentWorth.
[[nodiscard]] int64_t MinRows(const CacheSpec& spec);

// How `rows` of a group (from RowsAt), rows of full width in the cache's formats, are laid out for
// a sequence of `length` tokens.
//   rows < length   tiers hold rows - RecentWorth, so that with a full recent block the group takes
//                   the bytes of `rows`
//   rows == length  nothing needs dropping: tiers hold length - window
// The recent block always has window + margin rows. Never negative.
struct GroupRows {
  int64_t tier_rows = 0;    // rows allocated in the tiers
  int64_t recent_rows = 0;  // rows allocated in the recent block
};
[[nodiscard]] GroupRows LayoutRows(const CacheSpec& spec, int64_t rows, int64_t length);

// What a token of the group costs in each tier, all in one unit: in bytes of its rows where formats
// differ, else in elements, whose size then cancels. `bases` of the group's layer, for mixtures
// (else null), whose rows take what the head's runs take.
[[nodiscard]] std::vector<int64_t> TierCosts(const CacheGeometry& geometry,
                                             const CacheGroup& group,
                                             const std::vector<Tier>& tiers,
                                             const LayerBases* bases = nullptr);

// Rows allocated for a block that only grows and must hold `rows`: a multiple of
// kFullCacheGranularity.
inline constexpr int64_t kFullCacheGranularity = 64;
[[nodiscard]] constexpr int64_t GrownRows(int64_t rows) {
  return (rows + kFullCacheGranularity - 1) / kFullCacheGranularity * kFullCacheGranularity;
}

// Rows of every group [L][n] for a sequence of `length` tokens: min(n, budget), n being what the
// layer sees of them (SeenTokens), of which a share is one; floors of the shares plus largest
// remainders (ties: lower layer, then lower group first); at least MinRows (or n, if shorter). With
// kFull: n.
[[nodiscard]] std::vector<std::vector<int64_t>> RowsAt(const CacheSpec& spec, int64_t length);

// True for a layer with a window that has no tiers: its recent blocks hold the whole window, each
// new row in the place of the oldest. So it is with kFull, where sinks and tiers have no room
// beside the recent block, and where the budget is the window.
[[nodiscard]] bool HoldsWindow(const CacheSpec& spec, int64_t layer);

// LayoutRows for a group of a layer: of the tokens that it sees. With a window, tiers and recent
// block have room for at most the window's rows.
[[nodiscard]] GroupRows LayoutLayerRows(const CacheSpec& spec,
                                        int64_t layer,
                                        int64_t rows,
                                        int64_t length);

// Bytes of a group of a layer whose `layout` is full of tokens: rows, what stands beside those of
// the tiers, and the coordinates that it holds.
[[nodiscard]] int64_t LayoutBytes(const CacheSpec& spec,
                                  int64_t layer,
                                  const CacheGroup& group,
                                  const GroupRows& layout);

// The first of a layer's rows that the last of the next `steps` queries sees, of a sequence of
// `length` tokens: max(0, length + steps - window); 0 without a window.
[[nodiscard]] int64_t FirstRowSeen(const CacheSpec& spec,
                                   int64_t layer,
                                   int64_t length,
                                   int64_t steps);

// Bytes of the score that stands beside a row of the tiers.
inline constexpr int64_t kScoreBytes = sizeof(uint16_t);
// Bytes of the position by which a row of a layer with a window leaves its tier.
inline constexpr int64_t kPositionBytes = sizeof(int32_t);
// Bytes of what stands beside a row of a layer's tiers: the score, and with a window the position.
[[nodiscard]] int64_t TierRowExtraBytes(const CacheSpec& spec, int64_t layer);

// Bytes of one layer's query ring: query_ring rows of all H query heads, as wide as the keys are in
// the dot product (D with a latent), in float.
[[nodiscard]] int64_t QueryRingBytes(const CacheSpec& spec, int64_t layer);

// Dimensions that the widest tier narrower than a row keeps; 0 where none is narrower, and for the
// keys of latents, which are nested as they are.
struct NarrowWidths {
  int64_t key = 0;
  int64_t value = 0;
};
[[nodiscard]] NarrowWidths WidestNarrow(const CachePolicy& policy, const CacheGroup& group);

// Bytes of the coordinates that a group holds with kPrompt, in float: for each of its kv heads
// WidestNarrow rows as wide as keys, and as values.
[[nodiscard]] int64_t BasisBytes(const CacheSpec& spec, const CacheGroup& group);

struct CacheBytes {
  int64_t full = 0;       // OriginalBytes(length)
  int64_t logical = 0;    // rows that hold tokens, with positions and scores, and the query rings
  int64_t allocated = 0;  // what the runtime's allocations take
};
// What a sequence of `length` tokens takes after prefill (before the first decoded token). With
// narrow tiers the runtime takes at most that: the last bytes of a group may buy no tier.
[[nodiscard]] CacheBytes PredictBytes(const CacheSpec& spec, int64_t length);

}  // namespace kvc
