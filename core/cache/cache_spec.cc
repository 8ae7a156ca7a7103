#include "core/cache/cache_spec.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/base/error.h"
#include "core/cache/cache_bases.h"

namespace kvc {
namespace {

// The widest narrow tier's dimensions of a row `width` wide; 0 where none is narrower.
int64_t WidestBelow(const CachePolicy& policy, int64_t width, double Tier::*share) {
  int64_t widest = 0;
  for (const Tier& tier : policy.tiers) {
    const int64_t kept = TierWidth(width, tier.*share);
    if (kept < width) widest = std::max(widest, kept);
  }
  return widest;
}

// Throws unless `share` of a row `width` wide is a dimension or more.
void CheckTierWidth(const char* what, double share, int64_t width) {
  KVC_CHECK(share * static_cast<double>(width) >= 1.0 - 1e-9, kBadInput,
            "tiers: expected shares that keep a dimension or more, got {} of {} {} wide; leave "
            "this tier out",
            share, what, width);
}

// Throws unless a tier's own format has a name and takes no more bits than the cache's.
void CheckTierFormat(const char* what,
                     const std::optional<RowFormat>& own,
                     const RowFormat& format) {
  if (!own) return;
  KVC_CHECK(MeanBits(*own) <= MeanBits(format), kBadInput,
            "tiers: expected {} in at most the bits of the cache's {}, got {}", what,
            RowFormatName(format), RowFormatName(*own));
}

// Throws where a tier's mixture is one that no row has.
void CheckMixtures(const Tier& tier) {
  const bool key = tier.key_format && IsMixed(*tier.key_format);
  const bool value = tier.value_format && IsMixed(*tier.value_format);
  KVC_CHECK((!key || tier.key_share >= 1.0) && (!value || tier.value_share >= 1.0), kUnsupported,
            "tiers: expected all dimensions where bits differ by column, got shares {} and {} in "
            "{}; leave the share out",
            tier.key_share, tier.value_share,
            RowFormatName(key ? *tier.key_format : *tier.value_format));
}

// Bytes of a token of the group in the recent block.
int64_t RecentBytesPerToken(const CacheSpec& spec, const CacheGroup& group) {
  CacheGeometry geometry;
  geometry.key_format = KeyFormat(spec, -1);
  geometry.value_format = ValueFormat(spec, -1);
  return BytesPerToken(geometry, group);
}

// Floors of `wanted` plus one for the largest remainders, so that the sum is the floor of the sum.
std::vector<int64_t> RoundByLargestRemainder(const std::vector<double>& wanted) {
  std::vector<int64_t> rows(wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) rows[i] = static_cast<int64_t>(std::floor(wanted[i]));
  const double sum = std::accumulate(wanted.begin(), wanted.end(), 0.0);
  // A sum that should be whole can be a rounding error below it.
  const auto total = static_cast<int64_t>(std::floor(sum + 1e-6));
  int64_t missing = total - std::accumulate(rows.begin(), rows.end(), int64_t{0});
  std::vector<size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return wanted[a] - std::floor(wanted[a]) > wanted[b] - std::floor(wanted[b]);
  });
  for (size_t i = 0; i < order.size() && missing > 0; ++i, --missing) ++rows[order[i]];
  return rows;
}

}  // namespace

void CheckTiers(const CacheSpec& spec) {
  if (spec.recent_format) {
    KVC_CHECK(!IsMixed(*spec.recent_format), kUnsupported,
              "recent rows in {}: expected the same bits in all columns; take x8, x4 or x2",
              RowFormatName(*spec.recent_format));
    KVC_CHECK(RecentTier(spec) < std::ssize(spec.tiers), kBadInput,
              "recent rows in {}: expected a tier that keeps all dimensions in the same format, "
              "got none; add 1{} to the tiers",
              RowFormatName(*spec.recent_format), RowFormatName(*spec.recent_format));
  }
  if (spec.tiers.empty()) return;
  constexpr size_t kMostTiers = 31;
  KVC_CHECK(
      spec.tiers.size() <= kMostTiers && spec.tiers[0].key_share >= 1.0 &&
          spec.tiers[0].value_share >= 1.0 && !spec.tiers[0].key_format &&
          !spec.tiers[0].value_format,
      kBadInput,
      "tiers: expected at most {} and full width in the cache's formats first, got {}, the first "
      "with shares {} and {}{}",
      kMostTiers, spec.tiers.size(), spec.tiers[0].key_share, spec.tiers[0].value_share,
      spec.tiers[0].key_format || spec.tiers[0].value_format ? " and a format of its own" : "");
  for (const Tier& tier : spec.tiers) {
    CheckTierFormat("keys", tier.key_format, spec.key_format);
    CheckTierFormat("values", tier.value_format, spec.value_format);
    CheckMixtures(tier);
    const bool steps = NeedsSteps(tier.key_format.value_or(spec.key_format)) ||
                       NeedsSteps(tier.value_format.value_or(spec.value_format));
    KVC_CHECK(!steps || spec.basis == TierBasis::kOffline, kUnsupported,
              "tiers: expected --basis offline for rows in few bits, whose steps a profile finds, "
              "got {}",
              TierBasisName(spec.basis));
    for (const auto& groups : spec.layers) {
      for (const CacheGroup& group : groups) {
        CheckTierWidth("keys", tier.key_share, group.key_width);
        CheckTierWidth("values", tier.value_share, group.value_width);
      }
    }
  }
}

int64_t RecentTier(const CacheSpec& spec) {
  const Tier same = {1.0, 1.0, spec.recent_format, spec.recent_format};
  return std::ranges::find(spec.tiers, same) - spec.tiers.begin();
}

CacheSpec FullCache(CacheSpec spec) {
  spec.method = Method::kFull;
  spec.margin = 0;
  spec.query_ring = 0;
  spec.tiers.clear();
  spec.recent_format.reset();
  spec.budget.clear();
  return spec;
}

RowFormat KeyFormat(const CacheSpec& spec, int64_t tier) {
  const auto& own = tier < 0 ? spec.recent_format : spec.tiers[tier].key_format;
  return own.value_or(spec.key_format);
}

RowFormat ValueFormat(const CacheSpec& spec, int64_t tier) {
  const auto& own = tier < 0 ? spec.recent_format : spec.tiers[tier].value_format;
  return own.value_or(spec.value_format);
}

int64_t RecentWorth(const CacheSpec& spec) {
  const int64_t rows = spec.window + spec.margin;
  if (!spec.recent_format) return rows;
  int64_t worth = 0;
  for (const auto& groups : spec.layers) {
    for (const CacheGroup& group : groups) {
      const int64_t whole = BytesPerToken(spec, group);
      worth = std::max(worth, (rows * RecentBytesPerToken(spec, group) + whole - 1) / whole);
    }
  }
  return worth;
}

int64_t MinRows(const CacheSpec& spec) { return spec.sinks + 1 + RecentWorth(spec); }

GroupRows LayoutRows(const CacheSpec& spec, int64_t rows, int64_t length) {
  GroupRows layout;
  layout.recent_rows = spec.window + spec.margin;
  layout.tier_rows =
      std::max<int64_t>(0, rows < length ? rows - RecentWorth(spec) : length - spec.window);
  return layout;
}

std::vector<int64_t> TierCosts(const CacheGeometry& geometry,
                               const CacheGroup& group,
                               const std::vector<Tier>& tiers,
                               const LayerBases* bases) {
  bool differ = geometry.key_format != geometry.value_format ||
                geometry.key_format.scales != RowScales::kNone;
  for (const Tier& tier : tiers) differ = differ || tier.key_format || tier.value_format;
  std::vector<int64_t> costs;
  for (const Tier& tier : tiers) {
    const int64_t key = TierWidth(group.key_width, tier.key_share);
    const int64_t value = TierWidth(group.value_width, tier.value_share);
    if (!differ) {
      costs.push_back(key + std::ssize(group.heads) * value);
      continue;
    }
    const RowFormat key_format = tier.key_format.value_or(geometry.key_format);
    const RowFormat value_format = tier.value_format.value_or(geometry.value_format);
    const auto steps_of = [&](auto find, const RowFormat& format, int64_t head) {
      return bases != nullptr && IsMixed(format) ? find(*bases, format, head) : CodeSteps();
    };
    int64_t& cost = costs.emplace_back(
        RowBytes(key_format, key, steps_of(KeySteps, key_format, group.heads.front())));
    for (const int64_t head : group.heads) {
      cost += RowBytes(value_format, value, steps_of(ValueSteps, value_format, head));
    }
  }
  return costs;
}

std::vector<std::vector<int64_t>> RowsAt(const CacheSpec& spec, int64_t length) {
  std::vector<std::vector<int64_t>> rows;
  if (spec.full()) {
    for (int64_t l = 0; l < spec.num_layers(); ++l) {
      rows.emplace_back(spec.layers[l].size(), spec.SeenTokens(l, length));
    }
    return rows;
  }
  std::vector<double> wanted;  // flat over (layer, group)
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    KVC_CHECK(
        spec.budget.size() == spec.layers.size() && spec.budget[l].size() == spec.layers[l].size(),
        kBadShape, "cache budget: expected one value for each group of layer {}", l);
    const auto seen = static_cast<double>(spec.SeenTokens(l, length));
    for (const double budget : spec.budget[l]) {
      wanted.push_back(spec.by_share ? budget * seen : budget);
    }
  }
  const std::vector<int64_t> flat = RoundByLargestRemainder(wanted);
  size_t next = 0;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    std::vector<int64_t>& layer_rows = rows.emplace_back();
    const int64_t seen = spec.SeenTokens(l, length);
    for (size_t n = 0; n < spec.layers[l].size(); ++n) {
      const int64_t least = HoldsWindow(spec, l) ? seen : std::min(seen, MinRows(spec));
      layer_rows.push_back(std::clamp(flat[next++], least, seen));
    }
  }
  return rows;
}

bool HoldsWindow(const CacheSpec& spec, int64_t layer) {
  const int64_t window = spec.AttentionWindow(layer);
  if (window == 0) return false;
  if (spec.full() || spec.sinks + 1 + spec.window + spec.margin >= window) return true;
  if (spec.budget.empty()) return false;
  const double everything = spec.by_share ? 1.0 : static_cast<double>(window);
  return std::ranges::all_of(spec.budget[layer],
                             [&](double budget) { return budget >= everything; });
}

GroupRows LayoutLayerRows(const CacheSpec& spec, int64_t layer, int64_t rows, int64_t length) {
  const int64_t window = spec.AttentionWindow(layer);
  const int64_t seen = spec.SeenTokens(layer, length);
  if (HoldsWindow(spec, layer)) {
    const int64_t room = spec.full() ? GrownRows(seen) : seen + std::max<int64_t>(spec.margin, 1);
    return {0, std::min(window, room)};
  }
  GroupRows layout = LayoutRows(spec, rows, seen);
  if (window > 0) layout.tier_rows = std::min(layout.tier_rows, window - layout.recent_rows);
  return layout;
}

int64_t FirstRowSeen(const CacheSpec& spec, int64_t layer, int64_t length, int64_t steps) {
  const int64_t window = spec.AttentionWindow(layer);
  return window > 0 ? std::max<int64_t>(0, length + steps - window) : 0;
}

int64_t LayoutBytes(const CacheSpec& spec,
                    int64_t layer,
                    const CacheGroup& group,
                    const GroupRows& layout) {
  // The working block stays.
  if (HoldsWindow(spec, layer)) return layout.recent_rows * BytesPerToken(spec, group);
  return layout.tier_rows * (BytesPerToken(spec, group) + TierRowExtraBytes(spec, layer)) +
         layout.recent_rows * RecentBytesPerToken(spec, group) + BasisBytes(spec, group);
}

int64_t TierRowExtraBytes(const CacheSpec& spec, int64_t layer) {
  const bool leaves = spec.AttentionWindow(layer) > 0;
  return kScoreBytes + (leaves ? kPositionBytes : 0);
}

int64_t QueryRingBytes(const CacheSpec& spec, int64_t layer) {
  int64_t elements = 0;
  for (const CacheGroup& group : spec.layers[layer]) {
    const int64_t width = group.keeps_positions ? spec.head_width : group.key_width;
    elements += static_cast<int64_t>(group.heads.size()) * width;
  }
  return spec.query_ring * (spec.num_heads / spec.num_kv_heads) * elements *
         static_cast<int64_t>(sizeof(float));
}

NarrowWidths WidestNarrow(const CachePolicy& policy, const CacheGroup& group) {
  NarrowWidths widths;
  widths.value = WidestBelow(policy, group.value_width, &Tier::value_share);
  if (!group.keeps_positions) widths.key = WidestBelow(policy, group.key_width, &Tier::key_share);
  return widths;
}

int64_t BasisBytes(const CacheSpec& spec, const CacheGroup& group) {
  if (!spec.has_narrow_tiers() || spec.basis != TierBasis::kPrompt) return 0;
  const NarrowWidths widths = WidestNarrow(spec, group);
  const int64_t elements = widths.key * group.key_width + widths.value * group.value_width;
  return elements * static_cast<int64_t>(group.heads.size() * sizeof(float));
}

namespace {

// The rows of one group of a budget in use right after the prompt; tiers and recent block.
GroupRows UsedRows(const CacheSpec& spec, int64_t layer, const GroupRows& layout, int64_t length) {
  const int64_t seen = spec.SeenTokens(layer, length);
  if (HoldsWindow(spec, layer)) return {0, seen};
  const int64_t recent = std::min(seen, spec.window);
  const int64_t left = FirstRowSeen(spec, layer, seen, layout.recent_rows - recent);
  return {std::clamp<int64_t>(seen - recent - left, 0, layout.tier_rows), recent};
}

}  // namespace

CacheBytes PredictBytes(const CacheSpec& spec, int64_t length) {
  CacheBytes bytes;
  bytes.full = OriginalBytes(spec, length);
  const auto rows = RowsAt(spec, length);
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    for (size_t n = 0; n < spec.layers[l].size(); ++n) {
      const int64_t token_bytes = BytesPerToken(spec, spec.layers[l][n]);
      const int64_t seen = spec.SeenTokens(l, length);
      if (spec.full()) {
        bytes.logical += seen * token_bytes;
        bytes.allocated +=
            (HoldsWindow(spec, l) ? LayoutLayerRows(spec, l, seen, length).recent_rows
                                  : GrownRows(length)) *
            token_bytes;
        continue;
      }
      const CacheGroup& group = spec.layers[l][n];
      const GroupRows layout = LayoutLayerRows(spec, l, rows[l][n], length);
      bytes.logical += LayoutBytes(spec, l, group, UsedRows(spec, l, layout, length));
      bytes.allocated += LayoutBytes(spec, l, group, layout);
    }
    if (!spec.full()) {
      bytes.logical += QueryRingBytes(spec, l);
      bytes.allocated += QueryRingBytes(spec, l);
    }
  }
  return bytes;
}

}  // namespace kvc
