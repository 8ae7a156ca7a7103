#include "runtime/policy/decide.h"

#include <algorithm>
#include <numeric>

#include "runtime/cache/kv_layout.h"
#include "runtime/policy/tiering.h"

namespace kvc::runtime {
namespace {

// Makes the best candidates of a working block of `length` rows the only tier.
RowMoves KeepBest(const CacheSpec& spec,
                  int64_t length,
                  std::span<const float> scores,
                  int64_t tier_rows) {
  RowMoves moves;
  moves.leave_recent = length - RecentAfterPrompt(spec, length);
  moves.recent_capacity = spec.window + spec.margin;
  TierMoves& tier = moves.tiers.emplace_back();
  tier.capacity = tier_rows;
  const std::span<const float> ranked = scores.first(static_cast<size_t>(moves.leave_recent));
  for (const int64_t row : SelectTop(ranked, std::min(tier_rows, moves.leave_recent))) {
    tier.rows.push_back({kRecentBlock, row});
    tier.scores.push_back(scores[row]);
  }
  return moves;
}

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
  for (const std::span<const float> tier : group.tier_scores) {
    for (const float stored : tier) {
      if (!keeps_ages || stored == kPinned) scores[next] = std::max(scores[next], stored);
      ++next;
    }
  }
  scores.resize(next + static_cast<size_t>(moving));
  // A prompt shorter than the sinks leaves some of them to the first tokens after it.
  for (int64_t i = 0; i < moving && first + i < spec.sinks; ++i) scores[next + i] = kPinned;
}

// Keeps the best of the only tier's rows and the moving ones.
RowMoves KeepBestOfBoth(const HeldRows& group,
                        std::span<const float> scores,
                        int64_t moving,
                        int64_t tier_rows) {
  const int64_t old_rows = std::ssize(group.tier_scores[0]);
  RowMoves moves;
  moves.leave_recent = moving;
  TierMoves& tier = moves.tiers.emplace_back();
  tier.capacity = tier_rows;
  for (const int64_t i : SelectTop(scores, std::min<int64_t>(tier_rows, std::ssize(scores)))) {
    tier.rows.push_back(i < old_rows ? RowSource{0, i} : RowSource{kRecentBlock, i - old_rows});
    tier.scores.push_back(scores[i]);
  }
  return moves;
}

}  // namespace

std::vector<HeldRows> RowsOf(const LayerCache& layer) {
  std::vector<HeldRows> groups;
  for (const GroupCache& group : layer.groups) {
    HeldRows& rows = groups.emplace_back();
    for (const CacheBlock& tier : group.tiers) rows.tier_scores.push_back(tier.scores());
    rows.recent = group.recent.rows();
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

void PinSinks(const CacheSpec& spec, std::vector<GroupScores>& scores) {
  for (GroupScores& group : scores) {
    const int64_t sinks = std::min<int64_t>(spec.sinks, std::ssize(group.scores));
    std::fill_n(group.scores.begin(), sinks, kPinned);
  }
}

LayerMoves DecidePrompt(const CacheSpec& spec,
                        int64_t layer,
                        int64_t length,
                        std::vector<GroupScores>& scores,
                        std::span<const int64_t> tier_rows) {
  LayerMoves moves;
  for (size_t n = 0; n < scores.size(); ++n) {
    const auto group = static_cast<int64_t>(n);
    moves.groups.push_back(
        spec.has_narrow_tiers()
            ? DecidePromptTiers(spec, layer, group, length, scores[n], tier_rows[n])
            : KeepBest(spec, length, scores[n].scores, tier_rows[n]));
  }
  moves.query_rows = spec.query_ring;
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
    moves.groups.push_back(spec.has_narrow_tiers()
                               ? DecideTiers(spec, layer, static_cast<int64_t>(n), group, fresh[n],
                                             moving, tier_rows[n])
                               : KeepBestOfBoth(group, fresh[n].scores, moving, tier_rows[n]));
  }
  return moves;
}

LayerMoves DecideGrowth(const CacheSpec& spec, std::span<const HeldRows> groups) {
  LayerMoves moves;
  for (const HeldRows& group : groups) {
    moves.groups.emplace_back().recent_capacity =
        spec.full() ? GrownRows(group.recent + 1) : group.recent + kFullCacheGranularity;
  }
  return moves;
}

}  // namespace kvc::runtime
