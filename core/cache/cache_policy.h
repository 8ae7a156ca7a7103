#pragma once
// The policy of a cache: which tokens stay, and in how many of their dimensions and bits.

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/base/row_format.h"
#include "core/cache/scorer_spec.h"

namespace kvc {

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

// A tier keeps the first `key_share` of a key's dimensions and `value_share` of a value's, in the
// cache's formats or in its own. A row that moves to a tier is stored by the rule of CopyRows
// (core/base/row_format.h).
struct Tier {
  double key_share = 1.0;
  double value_share = 1.0;
  std::optional<RowFormat> key_format = {};  // none: the cache's
  std::optional<RowFormat> value_format = {};

  friend bool operator==(const Tier&, const Tier&) = default;
};

// Whether a tier has a format of its own.
[[nodiscard]] bool InFewBits(const std::vector<Tier>& tiers);

// Dimensions that a tier keeps of a row `width` wide: share x width, rounded, at least 1.
[[nodiscard]] int64_t TierWidth(int64_t width, double share);

// Where the coordinates of narrow tiers come from (--basis).
enum class TierBasis {
  kOffline,  // calibrated, part of the bundle: they cost a sequence nothing
  kPrompt,   // principal components of the prompt's own keys and values, held by the sequence
};
[[nodiscard]] std::string_view TierBasisName(TierBasis basis);     // "offline", "prompt"
[[nodiscard]] TierBasis TierBasisFromName(std::string_view name);  // throws kUsage

struct CachePolicy {
  Method method = Method::kFull;
  ScorerSpec scorer;
  int64_t sinks = 4;        // first tokens, never dropped
  int64_t window = 32;      // newest tokens, never dropped
  int64_t margin = 0;       // rows of the recent block beyond the window; 0 with kFull
  int64_t query_ring = 0;   // queries kept for re-allocation; 0 with kFull and key-only scorers
  std::vector<Tier> tiers;  // descending width; the implied last one is "dropped"
  // Of the recent block's rows; none: the cache's. One of the tiers has the same at full width.
  std::optional<RowFormat> recent_format;
  TierBasis basis = TierBasis::kOffline;

  // Rows that group n of layer l may hold, sinks, window and margin included:
  //   by_share: budget[l][n] is a share of the sequence's length; else a number of rows.
  bool by_share = true;
  std::vector<std::vector<double>> budget;  // [L][n]; empty with kFull

  [[nodiscard]] bool full() const { return method == Method::kFull; }
  // Whether some tier is narrower than a row: fewer dimensions, or a format of its own.
  [[nodiscard]] bool has_narrow_tiers() const;
};

}  // namespace kvc
