#include "runtime/policy/spread.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/cache/kv_layout.h"
#include "runtime/policy/decide.h"

namespace kvc::runtime {
namespace {

// Adds the scores of what may be dropped of a layer's `rows` rows: without sinks and window.
void AddFree(const CacheSpec& spec,
             int64_t rows,
             std::span<const GroupScores> scores,
             std::vector<std::vector<float>>& free) {
  const int64_t candidates = rows - RecentAfterPrompt(spec, rows);
  for (const GroupScores& group : scores) {
    free.emplace_back(group.scores.begin() + spec.sinks, group.scores.begin() + candidates);
  }
}

}  // namespace

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

void SpreadOverLayer(SequenceCache& cache,
                     int64_t layer,
                     int64_t length,
                     std::span<const GroupScores> scores) {
  const CacheSpec& spec = cache.spec();
  if (spec.method != Method::kAda) return;
  const int64_t seen = spec.SeenTokens(layer, length);
  const int64_t least = std::min(seen, MinRows(spec));
  if (least == seen) return;
  std::vector<std::vector<float>> free;
  AddFree(spec, seen, scores, free);
  std::vector<double> shares;
  for (const int64_t rows : AdaRows(free, cache.RowsOfLayer(layer, length), least, seen - 1)) {
    shares.push_back(static_cast<double>(rows - least));
  }
  cache.set_layer_shares(layer, std::move(shares));
}

void SpreadOverModel(SequenceCache& cache, int64_t length) {
  const CacheSpec& spec = cache.spec();
  // The layers see the same tokens (budget::MakeBudgetPlan).
  const int64_t seen = spec.SeenTokens(0, length);
  const int64_t least = std::min(seen, MinRows(spec));
  if (least == seen) return;
  std::vector<std::vector<float>> free;
  std::vector<int64_t> rows;
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    AddFree(spec, seen, cache.layer(l).prompt_scores, free);
    const std::vector<int64_t> of_layer = cache.RowsOfLayer(l, length);
    rows.insert(rows.end(), of_layer.begin(), of_layer.end());
  }
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  // A group that kept every token would be laid out with a margin beyond them (LayoutRows).
  const int64_t most = total < seen * std::ssize(rows) ? seen - 1 : seen;
  const std::vector<int64_t> chosen = AdaRows(free, rows, least, most, 0.0);
  std::vector<std::vector<double>> budget = spec.budget;
  size_t next = 0;
  for (auto& layer : budget) {
    for (double& value : layer) {
      value = static_cast<double>(chosen[next++]);
      if (spec.by_share) value /= static_cast<double>(seen);
    }
  }
  cache.set_budget(std::move(budget));
}

std::vector<int64_t> TierRows(SequenceCache& cache, int64_t layer, int64_t length) {
  std::vector<int64_t> rows = cache.RowsOfLayer(layer, length);
  for (int64_t& count : rows) {
    count = LayoutLayerRows(cache.spec(), layer, count, length).tier_rows;
  }
  return rows;
}

}  // namespace kvc::runtime
