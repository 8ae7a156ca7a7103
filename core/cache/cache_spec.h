#pragma once
// The shape of a compressed cache and the arithmetic of its bytes. The only home of these formulas:
// the exporter predicts with them what the runtime then allocates.
//
// A layer's cache is a list of groups. A group holds, for each kept token, one key row (of its key
// width) and one value row for each of its kv heads; the heads of a group keep the same tokens
// (a latent shared by several heads is kept or dropped for all of them together). With every layout
// but kLatent a group is one kv head.
//
// Rows of a group, in storage order:
//   tiers   tokens that were chosen, sorted by tier; each tier a dense [rows, width] block
//   recent  the newest tokens at full width, appended in O(1); `window + margin` rows. When it is
//           full, its `margin` oldest tokens are re-allocated into the tiers.
//
// With tiers narrower than a row the group has as many bytes for its tiers as its rows of full
// width would take, and spends them on more tokens of fewer dimensions. Keys and values are then
// stored in coordinates whose prefixes approximate them best (core/cache/cache_bases.h).
//
// Beside its rows a group with a budget holds one float score for each tier row (re-allocation
// compares new tokens with it), and with kLatent one int32 position for each row (the rotation is
// applied at use). A layer with a budget holds its last `query_ring` queries [ring, H, D] in float,
// and with TierBasis::kPrompt the coordinates that were found in the prompt. All of it counts: see
// PredictBytes.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/sizes.h"
#include "core/cache/scorer_spec.h"
#include "core/checkpoint/model_config.h"

namespace kvc {

struct LayerBases;  // core/cache/cache_bases.h

// How tokens are chosen and budgets are spread (--method). `kFull` keeps everything.
enum class Method {
  kFull,
  kStreaming,
  kUniform,
  kPyramid,
  kAda,
  kAdaModel,
  kHeadKv,
  kLuKv,
  kLuKvMixed
};
[[nodiscard]] std::string_view MethodName(Method method);    // "full", ..., "lukv-mixed"
[[nodiscard]] Method MethodFromName(std::string_view name);  // throws kUsage listing the names

struct CacheGroup {
  int64_t key_width = 0;         // R_n, or D
  int64_t value_width = 0;       // D, for each head
  std::vector<int64_t> heads;    // kv heads of the layer that this group serves
  bool keeps_positions = false;  // kLatent

  // Bytes of one stored token at full width: key row + value rows in `dtype`, and its position.
  [[nodiscard]] int64_t BytesPerToken(DType dtype) const;
};

// A tier keeps the first `key_share` of a key's dimensions and `value_share` of a value's.
struct Tier {
  double key_share = 1.0;
  double value_share = 1.0;
};

// Dimensions that a tier keeps of a row `width` wide: share x width, rounded, at least 1.
[[nodiscard]] int64_t TierWidth(int64_t width, double share);

// Where the coordinates of narrow tiers come from (--basis).
enum class TierBasis {
  kOffline,  // calibrated, part of the bundle: they cost a sequence nothing
  kPrompt,   // principal components of the prompt's own keys and values, held by the sequence
};
[[nodiscard]] std::string_view TierBasisName(TierBasis basis);     // "offline", "prompt"
[[nodiscard]] TierBasis TierBasisFromName(std::string_view name);  // throws kUsage

struct CacheSpec {
  DType dtype = DType::kF32;
  std::vector<std::vector<CacheGroup>> layers;  // [L][n]
  int64_t num_heads = 0;                        // H
  int64_t num_kv_heads = 0;                     // G
  int64_t head_width = 0;                       // D

  Method method = Method::kFull;
  ScorerSpec scorer;
  int64_t sinks = 4;        // first tokens, never dropped
  int64_t window = 32;      // newest tokens, never dropped
  int64_t margin = 0;       // rows of the recent block beyond the window; 0 with kFull
  int64_t query_ring = 0;   // queries kept for re-allocation; 0 with kFull and key-only scorers
  std::vector<Tier> tiers;  // descending width; the implied last one is "dropped"
  TierBasis basis = TierBasis::kOffline;
  // kOffline, [L]: not part of the manifest's JSON. Shared: every policy of a bundle points to the
  // bundle's, which may be gone before a sequence is.
  std::shared_ptr<const std::vector<LayerBases>> bases;

  // Rows that group n of layer l may hold, sinks, window and margin included:
  //   by_share: budget[l][n] is a share of the sequence's length; else a number of rows.
  bool by_share = true;
  std::vector<std::vector<double>> budget;  // [L][n]; empty with kFull

  [[nodiscard]] bool full() const { return method == Method::kFull; }
  // Whether some tier is narrower than a row.
  [[nodiscard]] bool mixed() const;
  [[nodiscard]] int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

// Throws kBadInput, naming the tier, unless the tiers are at most 31, begin with full width, and
// keep a dimension or more of every key and value.
void CheckTiers(const CacheSpec& spec);

// The same layers, groups and widths with every token kept.
[[nodiscard]] CacheSpec FullCache(CacheSpec spec);

// Bytes that the ORIGINAL model caches for one token in `dtype`: 2 L G D elements.
[[nodiscard]] int64_t OriginalBytesPerToken(const CacheSpec& spec);

// The smallest number of rows a budgeted group works with: sinks + 1 + window + margin.
[[nodiscard]] int64_t MinRows(const CacheSpec& spec);

// Rows of every group [L][n] for a sequence of `length` tokens: min(length, budget); floors of the
// shares plus largest remainders (ties: lower layer, then lower group first); at least MinRows (or
// `length`, if shorter). With kFull: `length`.
[[nodiscard]] std::vector<std::vector<int64_t>> RowsAt(const CacheSpec& spec, int64_t length);

// How `rows` of a group (from RowsAt) are laid out for a sequence of `length` tokens.
//   rows < length   tiers hold rows - window - margin, so that with a full recent block the group
//                   holds `rows`
//   rows == length  nothing needs dropping: tiers hold length - window
// The recent block always has window + margin rows. Never negative.
struct GroupRows {
  int64_t tier_rows = 0;    // rows allocated in the tiers
  int64_t recent_rows = 0;  // rows allocated in the recent block
};
[[nodiscard]] GroupRows LayoutRows(const CacheSpec& spec, int64_t rows, int64_t length);

// Bytes of the score that stands beside a row of the tiers.
inline constexpr int64_t kScoreBytes = sizeof(float);

// Bytes of one layer's query ring: query_ring rows of all H query heads, as wide as the keys are in
// the dot product (D with a latent), in float.
[[nodiscard]] int64_t QueryRingBytes(const CacheSpec& spec, int64_t layer);

// Dimensions that the widest tier narrower than a row keeps; 0 where none is narrower, and for the
// keys of latents, which are nested as they are.
struct NarrowWidths {
  int64_t key = 0;
  int64_t value = 0;
};
[[nodiscard]] NarrowWidths WidestNarrow(const CacheSpec& spec, const CacheGroup& group);

// Bytes of the coordinates that a group holds with kPrompt, in float: for each of its kv heads
// WidestNarrow rows as wide as keys, and as values.
[[nodiscard]] int64_t BasisBytes(const CacheSpec& spec, const CacheGroup& group);

struct CacheBytes {
  int64_t full = 0;       // OriginalBytesPerToken x length
  int64_t logical = 0;    // rows that hold tokens, with positions and scores, and the query rings
  int64_t allocated = 0;  // what the runtime's allocations take
};
// What a sequence of `length` tokens takes after prefill (before the first decoded token). With
// narrow tiers the runtime takes at most that: the last bytes of a group may buy no tier.
[[nodiscard]] CacheBytes PredictBytes(const CacheSpec& spec, int64_t length);

// Rows the runtime allocates for a kFull group that must hold `length`: rounded up to this.
inline constexpr int64_t kFullCacheGranularity = 64;

}  // namespace kvc
