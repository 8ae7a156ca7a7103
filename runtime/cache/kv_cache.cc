#include "runtime/cache/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "runtime/cache/kv_layout.h"

namespace kvc::runtime {
namespace {

void CheckSpec(const CacheSpec& spec) {
  (void)RowFormatName(spec.key_format);  // throws for rows that nothing can write or read
  (void)RowFormatName(spec.value_format);
  KVC_CHECK(
      spec.num_layers() > 0 && spec.num_kv_heads > 0 && spec.num_heads % spec.num_kv_heads == 0,
      kBadInput,
      "cache: expected layers, and query heads that the key-value heads divide, got {} over {}",
      spec.num_heads, spec.num_kv_heads);
  if (spec.full()) return;
  KVC_CHECK(spec.sinks >= 0 && spec.window >= 0 && spec.margin >= 0 && spec.query_ring >= 0 &&
                spec.window + spec.margin > 0,
            kBadInput,
            "cache: expected window + margin >= 1 and no negative size, got sinks {}, window {}, "
            "margin {}",
            spec.sinks, spec.window, spec.margin);
  CheckTiers(spec);
  if (!spec.has_narrow_tiers() || spec.basis != TierBasis::kOffline) return;
  KVC_CHECK(spec.bases != nullptr, kBadInput,
            "cache: tiers narrower than a row: expected the bundle's {}, got none; export it with "
            "a profile that has bases, or with --basis prompt",
            kBasesFile);
  CheckBasesFit(*spec.bases, spec);
}

}  // namespace

std::vector<int64_t> Apportion(std::span<const double> weights,
                               int64_t total,
                               int64_t least,
                               int64_t most) {
  const size_t n = weights.size();
  std::vector<int64_t> rows(n, least);
  int64_t left = total - static_cast<int64_t>(n) * least;
  std::vector<size_t> open(n);
  std::iota(open.begin(), open.end(), size_t{0});
  // Each round gives the open ones their shares; who reaches `most` leaves, and the rest goes round
  // again.
  while (left > 0 && !open.empty()) {
    double sum = 0.0;
    for (const size_t i : open) sum += weights[i];
    std::vector<std::pair<double, size_t>> remainders;
    int64_t given = 0;
    for (const size_t i : open) {
      const double share = sum > 0.0 ? weights[i] / sum : 1.0 / static_cast<double>(open.size());
      const double wanted = share * static_cast<double>(left);
      const auto whole = static_cast<int64_t>(std::floor(wanted));
      const int64_t take = std::min(whole, most - rows[i]);
      rows[i] += take;
      given += take;
      remainders.emplace_back(wanted - static_cast<double>(whole), i);
    }
    std::stable_sort(remainders.begin(), remainders.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    int64_t ones = left - given < static_cast<int64_t>(open.size()) ? left - given : 0;
    for (const auto& [remainder, i] : remainders) {
      if (ones == 0 || rows[i] >= most) continue;
      ++rows[i];
      ++given;
      --ones;
    }
    left -= given;
    std::erase_if(open, [&](size_t i) { return rows[i] >= most; });
    if (given == 0) break;
  }
  return rows;
}

int64_t GroupCache::tier_rows() const {
  int64_t sum = 0;
  for (const CacheBlock& tier : tiers) sum += tier.rows();
  return sum;
}

std::span<const int32_t> GroupCache::PositionsOf(size_t t) const {
  if (tier_positions.size() == 0) return {};
  int64_t first = 0;
  for (size_t i = 0; i < t; ++i) first += tiers[i].rows();
  return {tier_positions.data() + first, static_cast<size_t>(tiers[t].rows())};
}

QueryRing::QueryRing(
    const CacheSpec& spec, int64_t layer, int64_t rows, Device& device, CacheMeter& meter)
    : rows_(rows) {
  std::vector<int64_t> widths(static_cast<size_t>(spec.num_heads), 0);
  const int64_t group_size = spec.num_heads / spec.num_kv_heads;
  for (const CacheGroup& group : spec.layers[layer]) {
    for (const int64_t kv_head : group.heads) {
      for (int64_t h = kv_head * group_size; h < (kv_head + 1) * group_size; ++h) {
        widths[h] = QueryWidth(spec, group);
      }
    }
  }
  offsets_.push_back(0);
  for (const int64_t width : widths) offsets_.push_back(offsets_.back() + width);
  data_ = Buffer(rows * width() * static_cast<int64_t>(sizeof(float)), device, &meter);
}

int64_t QueryRing::count() const { return std::min(rows_, pushed_); }

QueryRing QueryRing::WithRoomOn(Device& device, CacheMeter& meter) const {
  QueryRing copy;
  copy.rows_ = rows_;
  copy.pushed_ = pushed_;
  copy.offsets_ = offsets_;
  copy.data_ = Buffer(data_.bytes(), device, &meter);
  return copy;
}

QueryRing QueryRing::Clone(CacheMeter& meter) const {
  if (data_.device() == nullptr) return {};
  QueryRing copy = WithRoomOn(*data_.device(), meter);
  if (data_.bytes() == 0) return copy;
  const int64_t row_bytes = width() * static_cast<int64_t>(sizeof(float));
  data_.device()->Copy(data_, 0, copy.data_, 0, count() * row_bytes);
  return copy;
}

QueryRing QueryRing::Resized(int64_t rows, CacheMeter& meter) const {
  QueryRing ring;
  ring.rows_ = rows;
  ring.offsets_ = offsets_;
  ring.pushed_ = pushed_;
  const int64_t row_bytes = width() * static_cast<int64_t>(sizeof(float));
  ring.data_ = Buffer(rows * row_bytes, *data_.device(), &meter);
  for (int64_t i = 0; i < std::min(rows, count()); ++i) {
    const int64_t number = pushed_ - 1 - i;
    data_.device()->Copy(data_, RowOf(number) * row_bytes, ring.data_,
                         ring.RowOf(number) * row_bytes, row_bytes);
  }
  return ring;
}

void ResizeRing(int64_t rows, LayerCache& layer, SequenceCache& cache) {
  if (rows < 0 || rows == layer.queries.rows()) return;
  layer.queries = layer.queries.Resized(rows, cache.meter());
}

SequenceCache::SequenceCache(CacheSpec spec, int64_t reserve, Device& device)
    : spec_(std::move(spec)),
      reserve_(reserve),
      device_(&device),
      meter_(std::make_unique<CacheMeter>()) {
  CheckSpec(spec_);
  if (spec_.tiers.empty()) spec_.tiers.push_back({});
  layers_.resize(spec_.layers.size());
  shares_.resize(spec_.layers.size());
}

std::unique_ptr<SequenceCache> SequenceCache::Clone() const {
  auto copy = std::make_unique<SequenceCache>(spec_, reserve_, *device_);
  copy->meter_ = std::make_unique<CacheMeter>(meter_->peak_bytes());
  copy->length_ = length_;
  copy->shares_ = shares_;
  for (size_t l = 0; l < layers_.size(); ++l) {
    LayerCache& target = copy->layers_[l];
    for (const GroupCache& group : layers_[l].groups) {
      GroupCache& target_group = target.groups.emplace_back();
      for (const CacheBlock& tier : group.tiers) {
        target_group.tiers.push_back(tier.Clone(*copy->meter_));
      }
      target_group.recent = group.recent.Clone(*copy->meter_);
      target_group.tier_positions = group.tier_positions.Clone(*copy->meter_);
    }
    target.queries = layers_[l].queries.Clone(*copy->meter_);
    target.residual_energy = layers_[l].residual_energy;
    if (layers_[l].coordinates != nullptr) {
      target.coordinates =
          std::make_unique<LayerCoordinates>(layers_[l].coordinates->Clone(*copy->meter_));
    }
  }
  return copy;
}

int64_t SequenceCache::logical_bytes() const {
  int64_t bytes = 0;
  for (int64_t l = 0; l < spec_.num_layers(); ++l) {
    for (const CacheGroup& group : spec_.layers[l]) {
      if (layers_[l].coordinates != nullptr) bytes += BasisBytes(spec_, group);
    }
    for (const GroupCache& group : layers_[l].groups) {
      for (const CacheBlock& tier : group.tiers) bytes += tier.rows() * tier.shape().BytesPerRow();
      if (spec_.AttentionWindow(l) > 0) bytes += group.tier_rows() * kPositionBytes;
      bytes += group.recent.rows() * group.recent.shape().BytesPerRow();
    }
    if (!spec_.full() && !layers_[l].groups.empty()) bytes += QueryRingBytes(spec_, l);
  }
  return bytes;
}

std::vector<int64_t> SequenceCache::RowsOfLayer(int64_t layer, int64_t length) {
  if (rows_length_ != length) {
    rows_ = RowsAt(spec_, length);
    rows_length_ = length;
  }
  if (shares_[layer].empty()) return rows_[layer];
  const int64_t seen = spec_.SeenTokens(layer, length);
  const int64_t total = std::accumulate(rows_[layer].begin(), rows_[layer].end(), int64_t{0});
  // A group that kept every token would be laid out with a margin beyond them (LayoutRows).
  const bool drops = total < seen * std::ssize(rows_[layer]);
  return Apportion(shares_[layer], total, std::min(seen, MinRows(spec_)), drops ? seen - 1 : seen);
}

void SequenceCache::set_layer_shares(int64_t layer, std::vector<double> shares) {
  shares_[layer] = std::move(shares);
}

void SequenceCache::set_budget(std::vector<std::vector<double>> budget) {
  spec_.budget = std::move(budget);
  rows_length_ = -1;
}

void SequenceCache::BeginLayer(int64_t layer, int64_t length, int64_t least_queries) {
  LayerCache& cache = layers_[layer];
  cache = LayerCache();  // an interrupted prompt may have begun it
  int64_t rows = spec_.full() ? GrownRows(std::max(length, reserve_)) : length;
  const int64_t window = spec_.AttentionWindow(layer);
  // What the prompt's own queries see is all there until they have been answered.
  if (window > 0) rows = std::max(length, std::min(rows, window));
  for (size_t n = 0; n < spec_.layers[layer].size(); ++n) {
    GroupCache& group = cache.groups.emplace_back();
    group.recent =
        CacheBlock(WorkingShape(spec_, layer, static_cast<int64_t>(n)), rows, *device_, *meter_);
  }
  if (spec_.full()) return;
  cache.queries =
      QueryRing(spec_, layer, std::max(spec_.query_ring, least_queries), *device_, *meter_);
}

void SequenceCache::SetTierPositions(int64_t layer,
                                     const LayerMoves& moves,
                                     std::span<const std::vector<std::vector<int32_t>>> before,
                                     int64_t first_recent) {
  for (size_t n = 0; n < moves.groups.size(); ++n) {
    GroupCache& group = layers_[layer].groups[n];
    if (moves.groups[n].tiers.empty()) continue;
    int64_t room = 0;
    for (const TierMoves& tier : moves.groups[n].tiers) room += tier.capacity;
    group.tier_positions = MeteredArray<int32_t>(room, *meter_);
    int32_t* next = group.tier_positions.data();
    for (const TierMoves& tier : moves.groups[n].tiers) {
      for (const RowSource& source : tier.rows) {
        *next++ = source.block == kRecentBlock ? static_cast<int32_t>(first_recent + source.row)
                                               : before[n][source.block][source.row];
      }
    }
  }
}

void SequenceCache::MakeCoordinates(int64_t layer) {
  layers_[layer].coordinates =
      spec_.basis == TierBasis::kPrompt
          ? std::make_unique<LayerCoordinates>(spec_, layer, *device_, *meter_)
          : std::make_unique<LayerCoordinates>((*spec_.bases)[layer], spec_.layers[layer]);
}

}  // namespace kvc::runtime
