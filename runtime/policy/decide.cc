#include "runtime/policy/decide.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/cache/kv_layout.h"
#include "runtime/policy/tiering.h"

namespace kvc::runtime {
namespace {

// The first of the `seen` rows of a working block that may become one of a tier: those in front of
// it leave the layer's window before the recent block is full.
int64_t FirstCandidate(const CacheSpec& spec, int64_t layer, int64_t seen) {
  return FirstRowSeen(spec, layer, seen, spec.window + spec.margin - RecentAfterPrompt(spec, seen));
}

// Gives the first rows the score kPinned.
void Pin(int64_t count, std::span<float> scores) {
  std::fill_n(scores.begin(), std::min<int64_t>(count, std::ssize(scores)), kPinned);
}

// Weight of the fresh score in the mean with the stored one, which more queries have made.
constexpr float kFreshShare = 0.25F;

// Collects scores of the tiers' rows and of the recent block's oldest `moving` rows, the first of
// which has position `first`.
void Compete(const CacheSpec& spec,
             const HeldRows& group,
             int64_t moving,
             int64_t first,
             std::vector<float>& scores) {
  // Streaming scores are ages, counted again each time.
  const bool keeps_ages =
      spec.scorer.kind == ScorerKind::kStreaming || spec.method == Method::kStreaming;
  size_t next = 0;
  for (const std::vector<float>& tier : group.tier_scores) {
    for (const float stored : tier) {
      if (stored == kPinned) {
        scores[next] = kPinned;
      } else if (!keeps_ages) {
        scores[next] = kFreshShare * scores[next] + (1.0F - kFreshShare) * stored;
      }
      ++next;
    }
  }
  scores.resize(next + static_cast<size_t>(moving));
  // A prompt shorter than the sinks leaves some of them to the first tokens after it.
  for (int64_t i = 0; i < moving && first + i < spec.sinks; ++i) scores[next + i] = kPinned;
}

// The rows of tier t in front of position `seen`, if its rows are in the order of their positions.
int64_t GoneRows(const HeldRows& group, size_t t, int64_t seen) {
  if (group.tier_positions.empty()) return 0;
  const std::span<const int32_t> positions = group.tier_positions[t];
  return std::ranges::lower_bound(positions, seen) - positions.begin();
}

// Leaves in the tiers of `group` what lies at position `seen` or behind it; nothing is moved where
// that is all.
void DropGone(const HeldRows& group, int64_t seen, RowMoves& moves) {
  std::vector<TierMoves> tiers(group.tier_scores.size());
  bool drops = false;
  for (size_t t = 0; t < tiers.size(); ++t) {
    for (int64_t row = 0; row < std::ssize(group.tier_scores[t]); ++row) {
      if (group.tier_positions[t][row] < seen) {
        drops = true;
        continue;
      }
      tiers[t].rows.push_back({static_cast<int64_t>(t), row});
      tiers[t].scores.push_back(group.tier_scores[t][row]);
    }
    tiers[t].capacity = std::ssize(tiers[t].rows);
  }
  if (drops) moves.tiers = std::move(tiers);
}

// Keeps the best of the only tier's rows, those in front of position `seen` left out, and the
// moving ones.
RowMoves KeepBestOfBoth(const HeldRows& group,
                        std::span<const float> all_scores,
                        int64_t moving,
                        int64_t seen,
                        int64_t tier_rows) {
  const int64_t gone = GoneRows(group, 0, seen);
  const std::span<const float> scores = all_scores.subspan(static_cast<size_t>(gone));
  const int64_t old_rows = std::ssize(group.tier_scores[0]) - gone;
  RowMoves moves;
  moves.leave_recent = moving;
  TierMoves& tier = moves.tiers.emplace_back();
  tier.capacity = tier_rows;
  for (const int64_t i : SelectTop(scores, std::min<int64_t>(tier_rows, std::ssize(scores)))) {
    tier.rows.push_back(i < old_rows ? RowSource{0, gone + i}
                                     : RowSource{kRecentBlock, i - old_rows});
    tier.scores.push_back(scores[i]);
  }
  return moves;
}

}  // namespace

std::vector<HeldRows> RowsOf(const LayerCache& layer) {
  std::vector<HeldRows> groups;
  for (const GroupCache& group : layer.groups) {
    HeldRows& rows = groups.emplace_back();
    for (const CacheBlock& tier : group.tiers) rows.tier_scores.push_back(tier.Scores());
    rows.recent = group.recent.rows();
    if (group.tier_positions.size() == 0) continue;
    for (size_t t = 0; t < group.tiers.size(); ++t) {
      rows.tier_positions.push_back(group.PositionsOf(t));
    }
  }
  return groups;
}

std::vector<int64_t> SelectTop(std::span<const float> scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  count = std::min<int64_t>(count, std::ssize(scores));
  const auto better = [&](int64_t a, int64_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  };
  if (count < std::ssize(scores)) {
    std::nth_element(order.begin(), order.begin() + count, order.end(), better);
    order.resize(count);
  }
  std::sort(order.begin(), order.end());
  return order;
}

bool CountsAreGiven(const CacheSpec& spec, int64_t layer) {
  return !spec.full() && !spec.has_narrow_tiers() && spec.method != Method::kAda &&
         spec.method != Method::kAdaModel && spec.AttentionWindow(layer) == 0;
}

LayerRule PromptRule(const CacheSpec& spec,
                     int64_t layer,
                     int64_t length,
                     std::span<const int64_t> tier_rows) {
  LayerRule rule;
  const int64_t seen = spec.SeenTokens(layer, length);
  const int64_t leaving = seen - RecentAfterPrompt(spec, seen);
  for (const int64_t rows : tier_rows) {
    KeepRule& group = rule.groups.emplace_back();
    group.first = std::min(FirstCandidate(spec, layer, seen), leaving);
    group.candidates = leaving - group.first;
    group.pinned =
        seen < length ? 0 : std::clamp<int64_t>(spec.sinks - group.first, 0, group.candidates);
    group.tier_capacity = rows;
    group.recent_capacity = spec.window + spec.margin;
  }
  rule.query_rows = spec.query_ring;
  return rule;
}

RowMoves KeepBest(const KeepRule& rule, std::span<const float> scores) {
  RowMoves moves;
  moves.leave_recent = rule.first + rule.candidates;
  moves.recent_capacity = rule.recent_capacity;
  TierMoves& tier = moves.tiers.emplace_back();
  tier.capacity = rule.tier_capacity;
  const auto begin = scores.begin() + rule.first;
  std::vector<float> ranked(begin, begin + rule.candidates);
  Pin(rule.pinned, ranked);
  for (const int64_t i : SelectTop(ranked, rule.kept())) {
    tier.rows.push_back({kRecentBlock, rule.first + i});
    tier.scores.push_back(ranked[i]);
  }
  return moves;
}

LayerMoves DecidePrompt(const CacheSpec& spec,
                        int64_t layer,
                        int64_t length,
                        std::vector<GroupScores>& scores,
                        std::span<const int64_t> tier_rows) {
  LayerMoves moves;
  const LayerRule rule = PromptRule(spec, layer, length, tier_rows);
  moves.query_rows = rule.query_rows;
  const int64_t seen = spec.SeenTokens(layer, length);
  for (size_t n = 0; n < scores.size(); ++n) {
    const auto group = static_cast<int64_t>(n);
    if (spec.has_narrow_tiers()) {
      if (seen == length) Pin(spec.sinks, scores[n].scores);
      moves.groups.push_back(DecidePromptTiers(
          spec, layer, group, {FirstCandidate(spec, layer, seen), seen}, scores[n], tier_rows[n]));
    } else {
      moves.groups.push_back(KeepBest(rule.groups[n], scores[n].scores));
    }
  }
  return moves;
}

LayerMoves DecideReallocation(const CacheSpec& spec,
                              int64_t layer,
                              int64_t length,
                              std::span<const HeldRows> groups,
                              std::vector<GroupScores>& fresh,
                              std::span<const int64_t> tier_rows) {
  LayerMoves moves;
  for (size_t n = 0; n < groups.size(); ++n) {
    const HeldRows& group = groups[n];
    const int64_t moving = std::min(RowsToReallocate(spec), group.recent);
    Compete(spec, group, moving, length - group.recent, fresh[n].scores);
    const int64_t seen = FirstRowSeen(spec, layer, length, moving);
    moves.groups.push_back(
        spec.has_narrow_tiers()
            ? DecideTiers(spec, layer, static_cast<int64_t>(n), group, fresh[n], moving, seen,
                          tier_rows[n])
            : KeepBestOfBoth(group, fresh[n].scores, moving, seen, tier_rows[n]));
  }
  return moves;
}

LayerMoves DecideWindow(const CacheSpec& spec, int64_t layer, int64_t length) {
  const int64_t seen = spec.SeenTokens(layer, length);
  const bool holds = HoldsWindow(spec, layer);
  const int64_t capacity = holds ? LayoutLayerRows(spec, layer, seen, length).recent_rows : seen;
  LayerMoves moves;
  if (holds && !spec.full()) moves.query_rows = spec.query_ring;
  for (size_t n = 0; n < spec.layers[layer].size(); ++n) {
    RowMoves& group = moves.groups.emplace_back();
    group.leave_recent = length - seen;
    group.recent_capacity = capacity;
  }
  return moves;
}

LayerMoves DecideGrowth(const CacheSpec& spec,
                        int64_t layer,
                        int64_t length,
                        std::span<const HeldRows> groups) {
  const int64_t window = spec.AttentionWindow(layer);
  LayerMoves moves;
  for (const HeldRows& group : groups) {
    int64_t step = kFullCacheGranularity;
    if (window > 0 && !group.tier_scores.empty()) {
      step = std::clamp<int64_t>(window / 8, 1, kFullCacheGranularity);
    }
    int64_t capacity = spec.full() ? GrownRows(group.recent + 1) : group.recent + step;
    if (window > 0) capacity = std::min(capacity, window);
    RowMoves& own = moves.groups.emplace_back();
    own.recent_capacity = capacity;
    if (window > 0) {
      DropGone(group, FirstRowSeen(spec, layer, length, capacity - group.recent), own);
    }
  }
  return moves;
}

}  // namespace kvc::runtime
