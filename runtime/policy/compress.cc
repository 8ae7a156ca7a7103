#include "runtime/policy/compress.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/base/processor_time.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/policy/tiering.h"

namespace kvc::runtime {
namespace {

// The score of a token that is never dropped.
constexpr float kPinned = std::numeric_limits<float>::infinity();

// Moves the chosen tokens of a working block into new blocks. `chosen`: candidates, ascending.
void BuildGroup(SequenceCache& cache,
                int64_t layer,
                int64_t n,
                std::span<const float> scores,
                int64_t tier_rows) {
  const CacheSpec& spec = cache.spec();
  GroupCache& group = cache.layer(layer).groups[n];
  const CacheBlock working = std::move(group.recent);
  const int64_t recent_rows = RecentAfterPrompt(spec, working.rows());
  const int64_t candidates = working.rows() - recent_rows;
  CacheBlock tier(cache.ShapeOf(layer, n, 0), tier_rows, cache.meter());
  const std::span<const float> ranked = scores.first(static_cast<size_t>(candidates));
  for (const int64_t row : SelectTop(ranked, std::min(tier_rows, candidates))) {
    tier.AppendRow(working, row, scores[row]);
  }
  group.tiers.push_back(std::move(tier));
  group.recent = CacheBlock(cache.ShapeOf(layer, n, -1), spec.window + spec.margin, cache.meter());
  for (int64_t row = candidates; row < working.rows(); ++row) {
    group.recent.AppendRow(working, row, 0.0F);
  }
}

// Brings the ring to the rows that re-allocation needs.
void TrimRing(SequenceCache& cache, int64_t layer) {
  const CacheSpec& spec = cache.spec();
  QueryRing& ring = cache.layer(layer).queries;
  if (ring.rows() == spec.query_ring) return;
  ring = ring.Resized(spec.query_ring, cache.meter());
}

// Scores of the tiers' rows and of the recent block's oldest `moving` rows, the first of which has
// position `first`.
void Compete(const CacheSpec& spec,
             const GroupCache& group,
             int64_t moving,
             int64_t first,
             std::vector<float>& scores) {
  // Streaming scores are ages, counted anew each time.
  const bool keeps_ages =
      spec.scorer.kind == ScorerKind::kStreaming || spec.method == Method::kStreaming;
  size_t next = 0;
  for (const CacheBlock& tier : group.tiers) {
    for (const float stored : tier.scores()) {
      if (!keeps_ages || stored == kPinned) scores[next] = std::max(scores[next], stored);
      ++next;
    }
  }
  scores.resize(next + static_cast<size_t>(moving));
  // A prompt shorter than the sinks leaves some of them to the first tokens that come after it.
  for (int64_t i = 0; i < moving && first + i < spec.sinks; ++i) scores[next + i] = kPinned;
}

void ReallocateGroup(SequenceCache& cache,
                     GroupCache& group,
                     std::span<const float> scores,
                     int64_t moving,
                     int64_t tier_rows) {
  CacheBlock& tier = group.tiers[0];
  const int64_t old_rows = tier.rows();
  const int64_t rows = std::min<int64_t>(tier_rows, std::ssize(scores));
  const std::vector<int64_t> chosen = SelectTop(scores, rows);
  const auto split = std::lower_bound(chosen.begin(), chosen.end(), old_rows);
  const std::span<const int64_t> kept(chosen.begin(), split);
  tier.Keep(kept);
  for (size_t i = 0; i < kept.size(); ++i) tier.scores()[i] = scores[kept[i]];
  tier.Reserve(tier_rows, cache.meter());
  for (auto it = split; it != chosen.end(); ++it) {
    tier.AppendRow(group.recent, *it - old_rows, scores[*it]);
  }
  group.recent.DropFront(moving);
}

// The scores of what may be dropped: without sinks and window.
void AddFree(const CacheSpec& spec,
             int64_t length,
             std::span<const GroupScores> scores,
             std::vector<std::vector<float>>& free) {
  const int64_t candidates = length - RecentAfterPrompt(spec, length);
  for (const GroupScores& group : scores) {
    free.emplace_back(group.scores.begin() + spec.sinks, group.scores.begin() + candidates);
  }
}

// kAda: shares of the layer's groups from their scores.
void SpreadByScores(SequenceCache& cache,
                    int64_t layer,
                    int64_t length,
                    std::span<const GroupScores> scores) {
  const CacheSpec& spec = cache.spec();
  const int64_t least = std::min(length, MinRows(spec));
  if (least == length) return;
  std::vector<std::vector<float>> free;
  AddFree(spec, length, scores, free);
  std::vector<double> shares;
  for (const int64_t rows : AdaRows(free, cache.RowsOfLayer(layer, length), least, length - 1)) {
    shares.push_back(static_cast<double>(rows - least));
  }
  cache.set_layer_shares(layer, std::move(shares));
}

// kAdaModel: the sequence's budget from the scores of all layers.
void SpreadOverModel(SequenceCache& cache, int64_t length) {
  const CacheSpec& spec = cache.spec();
  const int64_t least = std::min(length, MinRows(spec));
  if (least == length) return;
  std::vector<std::vector<float>> free;
  std::vector<int64_t> rows;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    AddFree(spec, length, cache.layer(l).prompt_scores, free);
    const std::vector<int64_t> of_layer = cache.RowsOfLayer(l, length);
    rows.insert(rows.end(), of_layer.begin(), of_layer.end());
  }
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  // A group that kept every token would be laid out with a margin beyond them (LayoutRows).
  const int64_t most = total < length * std::ssize(rows) ? length - 1 : length;
  const std::vector<int64_t> chosen = AdaRows(free, rows, least, most, 0.0);
  std::vector<std::vector<double>> budget = spec.budget;
  size_t next = 0;
  for (auto& layer : budget) {
    for (double& value : layer) {
      value = static_cast<double>(chosen[next++]);
      if (spec.by_share) value /= static_cast<double>(length);
    }
  }
  cache.set_budget(std::move(budget));
}

// Tier rows that each group is allocated for a sequence of `length` tokens.
std::vector<int64_t> TierRows(SequenceCache& cache, int64_t layer, int64_t length) {
  std::vector<int64_t> rows = cache.RowsOfLayer(layer, length);
  for (int64_t& count : rows) count = LayoutRows(cache.spec(), count, length).tier_rows;
  return rows;
}

// Turns a layer's working blocks into tiers and recent blocks.
void BuildLayer(SequenceCache& cache,
                int64_t layer,
                int64_t length,
                std::vector<GroupScores> scores) {
  const std::vector<int64_t> tier_rows = TierRows(cache, layer, length);
  for (size_t n = 0; n < scores.size(); ++n) {
    if (cache.spec().mixed()) {
      BuildTiers(cache, layer, static_cast<int64_t>(n), scores[n], tier_rows[n]);
    } else {
      BuildGroup(cache, layer, static_cast<int64_t>(n), scores[n].scores, tier_rows[n]);
    }
  }
  TrimRing(cache, layer);
}

// Whether two caches of the same prompt get the same scores and losses from the same scorer.
bool AskTheSame(const CacheSpec& a, const CacheSpec& b) {
  if (a.window != b.window || a.sinks != b.sinks || a.mixed() != b.mixed()) return false;
  if (!a.mixed()) return true;
  const auto equal = [](const Tier& s, const Tier& t) {
    return s.key_share == t.key_share && s.value_share == t.value_share;
  };
  return a.basis == b.basis && a.bases == b.bases && std::ranges::equal(a.tiers, b.tiers, equal);
}

}  // namespace

const PromptScores::Scored& PromptScores::Of(const LayerScoring& scoring,
                                             const SequenceCache& cache) {
  for (const Entry& entry : entries_) {
    if (entry.scorer == scoring.scorer && AskTheSame(*entry.spec, cache.spec()))
      return entry.scored;
  }
  const double start = ProcessorSeconds();
  Entry& entry = entries_.emplace_back();
  entry.scorer = scoring.scorer;
  entry.spec = &cache.spec();
  entry.scored.groups = ScoreLayer(scoring, cache);
  entry.scored.seconds = ProcessorSeconds() - start;
  return entry.scored;
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

std::vector<int64_t> AdaRows(std::span<const std::vector<float>> scores,
                             std::span<const int64_t> rows,
                             int64_t fixed,
                             int64_t most,
                             double safeguard) {
  int64_t budget = 0;  // rows to spread over the layer
  std::vector<float> all;
  std::vector<size_t> owner;
  for (size_t n = 0; n < scores.size(); ++n) {
    budget += std::max<int64_t>(0, rows[n] - fixed);
    all.insert(all.end(), scores[n].begin(), scores[n].end());
    owner.insert(owner.end(), scores[n].size(), n);
  }
  std::vector<double> wanted(scores.size(), 0.0);
  for (const int64_t i : SelectTop(all, budget)) wanted[owner[i]] += 1.0 - safeguard;
  for (size_t n = 0; n < scores.size(); ++n) {
    wanted[n] += safeguard * static_cast<double>(std::max<int64_t>(0, rows[n] - fixed));
  }
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  return Apportion(wanted, total, std::min(fixed, most), most);
}

double CompressLayer(const LayerScoring& scoring, SequenceCache& cache, PromptScores& shared) {
  const CacheSpec& spec = cache.spec();
  if (spec.full()) return 0.0;
  const double start = ProcessorSeconds();
  const int64_t layer = scoring.attention->layer;
  const int64_t length = cache.layer(layer).groups[0].recent.rows();
  if (spec.mixed()) {
    cache.MakeCoordinates(layer);
    if (spec.basis == TierBasis::kPrompt) FindCoordinates(scoring, cache);
  }
  const double before = ProcessorSeconds();
  const PromptScores::Scored& scored = shared.Of(scoring, cache);
  std::vector<GroupScores> scores = scored.groups;
  const double after = ProcessorSeconds();
  for (GroupScores& group : scores) {
    std::fill_n(group.scores.begin(), std::min(spec.sinks, length), kPinned);
  }
  if (spec.method == Method::kAdaModel) {
    cache.layer(layer).prompt_scores = std::move(scores);
  } else {
    if (spec.method == Method::kAda) SpreadByScores(cache, layer, length, scores);
    BuildLayer(cache, layer, length, std::move(scores));
  }
  return before - start + scored.seconds + ProcessorSeconds() - after;
}

void CompressModel(SequenceCache& cache) {
  if (cache.spec().method != Method::kAdaModel) return;
  const int64_t length = cache.layer(0).groups[0].recent.rows();
  SpreadOverModel(cache, length);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    BuildLayer(cache, l, length, std::move(cache.layer(l).prompt_scores));
  }
}

void ReallocateLayer(const LayerScoring& scoring, SequenceCache& cache, int64_t length) {
  const int64_t layer = scoring.attention->layer;
  std::vector<GroupScores> fresh = ScoreLayer(scoring, cache);
  const std::vector<int64_t> tier_rows = TierRows(cache, layer, length);
  for (size_t n = 0; n < fresh.size(); ++n) {
    GroupCache& group = cache.layer(layer).groups[n];
    const int64_t moving = std::min(RowsToReallocate(cache.spec()), group.recent.rows());
    Compete(cache.spec(), group, moving, length - group.recent.rows(), fresh[n].scores);
    if (cache.spec().mixed()) {
      ReallocateTiers(cache, layer, static_cast<int64_t>(n), fresh[n], moving, tier_rows[n]);
    } else {
      ReallocateGroup(cache, group, fresh[n].scores, moving, tier_rows[n]);
    }
  }
}

}  // namespace kvc::runtime
