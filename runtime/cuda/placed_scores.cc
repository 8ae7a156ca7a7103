#include "runtime/cuda/placed_scores.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/cache/cache_spec.h"
#include "kernels/cuda/finish_scores.h"
#include "kernels/cuda/reserve_shares.h"
#include "kernels/cuda/select.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"
#include "runtime/cuda/device_table.h"
#include "runtime/cuda/layer_sums.h"
#include "runtime/cuda/unsettled_layer.h"
#include "scorers/window_attention.h"

namespace kvc::runtime {
namespace {

// Collects the last part of scoring for all heads of a layer: the tables of what
// scorers::Scorer::Finish does with the same sums.
class LayerFinish {
 public:
  LayerFinish(const LayerSums& sums,
              const CacheSpec& spec,
              ScorerKind kind,
              const double* energy,
              CudaDevice& device)
      : sums_(sums), spec_(spec), kind_(kind), device_(device) {
    if (spec.scorer.options.relative) energy_ = energy;
  }

  // Puts everything into the stream; `result` gets the scores.
  void Launch(ScoresOnDevice& result) {
    PlaceScores(result);
    int32_t* faults = DeviceMemory::Ints(*result.faults);
    for (size_t h = 0; h < sums_.heads().size(); ++h) {
      AddHead(sums_.heads()[h], DeviceMemory::Floats(result.scores) + first_[h], faults);
    }
    LaunchTable<cuda::SumFinish>(finishes_, cuda::FinishScores);
    Reserve(by_window_);
    Reserve(by_keys_);
    std::vector<cuda::HeadsSum> groups;
    for (size_t n = 0; n < result.first.size(); ++n) {
      groups.push_back({DeviceMemory::Floats(result.scores) + result.first[n], Int(rows_[n]),
                        Int(planes_[n]), Int(std::min(spec_.sinks, rows_[n]))});
    }
    LaunchTable<cuda::HeadsSum>(groups, cuda::SumHeads);
  }

 private:
  // Heads of a group lie one behind another; behind all of them the scores by the window that
  // choose a share.
  void PlaceScores(ScoresOnDevice& result) {
    int64_t floats = 0;
    for (const HeadSums& head : sums_.heads()) {
      if (head.place.plane == 0) {
        result.first.push_back(floats);
        rows_.push_back(head.rows);
        planes_.push_back(0);
      }
      ++planes_.back();
      first_.push_back(floats);
      floats += head.rows;
      most_rows_ = std::max(most_rows_, Int(head.rows));
    }
    result.scores = Room<float>(floats, device_);
    if (sums_.wanted().prompt) pooled_ = Room<float>(floats, device_);
  }

  void AddHead(const HeadSums& head, float* scores, int32_t* faults) {
    cuda::SumFinish entry;
    entry.scores = scores;
    entry.rows = Int(head.rows);
    entry.window = Int(head.window);
    entry.faults = faults;
    switch (kind_) {
      case ScorerKind::kStreaming:
        break;
      case ScorerKind::kSnapKv:
        entry.sums = sums_.OnDevice(head.attention);
        entry.weight = 1.0F / static_cast<float>(head.window * head.heads);
        entry.pool = Int(scorers::PoolWidth(kind_, spec_.scorer.options));
        break;
      case ScorerKind::kKnorm:
      case ScorerKind::kKeyDiff:
        entry.sums = sums_.OnDevice(head.keys);
        break;
      case ScorerKind::kExpectedAttention:
        entry.sums = sums_.OnDevice(head.by_prompt);
        entry.unchecked = head.rows > spec_.sinks ? Int(spec_.sinks) : 0;
        break;
      case ScorerKind::kOutputError:
        return AddOutputError(head, entry);
    }
    finishes_.push_back(entry);
  }

  void AddOutputError(const HeadSums& head, cuda::SumFinish entry) {
    const ScorerOptions& options = spec_.scorer.options;
    const bool by_prompt = options.prompt > 0;
    const auto heads = static_cast<double>(head.heads);
    float* scores = entry.scores;
    entry.energy = energy_;
    cuda::SumFinish window = entry;
    window.sums = sums_.OnDevice(options.mean ? head.errors : head.maxima);
    if (options.mean) window.divisor = static_cast<double>(head.window) * heads;
    window.pool = Int(scorers::PoolWidth(kind_, options));
    if (by_prompt) {
      window.scores = DeviceMemory::Floats(pooled_) + pooled_floats_;
      pooled_floats_ += head.rows;
      entry.sums = sums_.OnDevice(head.by_prompt);
      entry.divisor = static_cast<double>(head.prompt_queries) * heads;
      finishes_.push_back(entry);
      AddShare(head, window.scores, options.recent, scores, by_window_);
    }
    finishes_.push_back(window);
    if (options.keydiff == 0.0) return;
    cuda::SumFinish keys;
    keys.sums = sums_.OnDevice(head.keys);
    keys.rows = entry.rows;
    keys.faults = entry.faults;
    finishes_.push_back(keys);
    AddShare(head, keys.sums, options.keydiff, scores, by_keys_);
  }

  // Among those rows that may be dropped.
  void AddShare(const HeadSums& head,
                const float* other,
                double share,
                float* scores,
                std::vector<cuda::ShareReserve>& shares) {
    const int64_t first = std::min(spec_.sinks, head.rows);
    const int64_t count = head.rows - head.window - first;
    if (count <= 0 || share <= 0.0) return;
    shares.push_back({other + first, scores + first, Int(count), (1.0 - share) / share, nullptr});
  }

  void Reserve(std::vector<cuda::ShareReserve>& shares) {
    if (shares.empty()) return;
    int64_t rows = 0;
    for (const cuda::ShareReserve& share : shares) rows += share.rows;
    const Buffer scratch = Room<uint32_t>(cuda::kReserveScratch * rows, device_);
    auto* next = reinterpret_cast<uint32_t*>(DeviceMemory::Of(scratch));
    for (cuda::ShareReserve& share : shares) {
      share.scratch = next;
      next += cuda::kReserveScratch * share.rows;
    }
    DeviceTable<cuda::ShareReserve> table;
    table.Set(shares, device_);
    cuda::ReserveShares(table.data(), Int(std::ssize(shares)), device_.stream());
  }

  template <class T, class Kernel>
  void LaunchTable(const std::vector<T>& entries, const Kernel& kernel) {
    if (entries.empty()) return;
    DeviceTable<T> table;
    table.Set(entries, device_);
    kernel(table.data(), Int(std::ssize(entries)), most_rows_, device_.stream());
  }

  const LayerSums& sums_;
  const CacheSpec& spec_;
  ScorerKind kind_;
  CudaDevice& device_;
  const double* energy_ = nullptr;
  std::vector<int64_t> first_;          // [heads], in floats
  std::vector<int64_t> rows_, planes_;  // [n]
  int32_t most_rows_ = 0;
  Buffer pooled_;
  int64_t pooled_floats_ = 0;
  std::vector<cuda::SumFinish> finishes_;
  std::vector<cuda::ShareReserve> by_window_, by_keys_;
};

// The rows that each group's tier keeps, group after group, are found by the scores.
void Select(const LayerRule& rule,
            const ScoresOnDevice& scores,
            UnsettledLayer& news,
            CudaDevice& device) {
  int64_t kept = 0;
  for (const KeepRule& group : rule.groups) kept += group.kept();
  news.chosen = Room<int32_t>(kept, device);
  news.best = Room<float>(kept, device);
  std::vector<cuda::Selection> selections;
  int64_t next = 0;
  for (size_t n = 0; n < rule.groups.size(); ++n) {
    const KeepRule& group = rule.groups[n];
    selections.push_back({DeviceMemory::Floats(scores.scores) + scores.first[n],
                          DeviceMemory::Ints(news.chosen) + next,
                          DeviceMemory::Floats(news.best) + next, Int(group.candidates),
                          Int(group.kept())});
    next += group.kept();
  }
  DeviceTable<cuda::Selection> table;
  table.Set(selections, device);
  cuda::SelectTop(table.data(), Int(std::ssize(selections)), device.stream());
}

}  // namespace

bool CanFinish(const ScoreRequest& request, const SequenceCache& cache) {
  return request.scorer->comparable() ||
         std::ranges::all_of(cache.spec().layers[request.layer],
                             [](const CacheGroup& group) { return group.heads.size() == 1; });
}

std::shared_ptr<const ScoresOnDevice> ScoreInPlaceOnDevice(const ScoreRequest& request,
                                                           const CudaModel& model,
                                                           SequenceCache& cache,
                                                           DeviceBases& bases,
                                                           ThreadPool& pool,
                                                           CudaDevice& device) {
  LayerSums sums(request, model, cache, bases, pool, device);
  sums.Find();
  auto result = std::make_shared<ScoresOnDevice>();
  result->scorer = request.scorer->kind();
  auto faults = std::make_shared<Buffer>(Room<int32_t>(1, device));
  cuda::FillZero(DeviceMemory::Of(*faults), sizeof(int32_t), device.stream());
  result->faults = std::move(faults);
  const Buffer& energy = UnsettledOf(cache.layer(request.layer)).energy;
  LayerFinish(sums, cache.spec(), request.scorer->kind(),
              reinterpret_cast<const double*>(DeviceMemory::Of(energy)), device)
      .Launch(*result);
  return result;
}

void ApplyRuleOnDevice(const LayerRule& rule,
                       const ScoresOnDevice& scores,
                       int64_t layer,
                       SequenceCache& cache,
                       CudaDevice& device) {
  LayerCache& store = cache.layer(layer);
  KVC_CHECK(rule.groups.size() == store.groups.size(), kInternal,
            "rule: expected {} groups, got {}", store.groups.size(), rule.groups.size());
  store.tables.reset();
  UnsettledLayer& news = UnsettledOf(store);
  news.faults = scores.faults;
  news.scorer = scores.scorer;
  Select(rule, scores, news, device);
  std::vector<CacheBlock> working;
  std::vector<cuda::RowMove> moves;
  const int32_t* chosen = DeviceMemory::Ints(news.chosen);
  for (size_t n = 0; n < rule.groups.size(); ++n) {
    const KeepRule& of = rule.groups[n];
    KVC_CHECK(of.first == 0, kInternal, "rule: expected that no row is out of a window, got {}",
              of.first);
    GroupCache& group = store.groups[n];
    const CacheBlock& from = working.emplace_back(std::move(group.recent));
    const auto make = [&](int64_t tier, int64_t capacity) {
      return CacheBlock(ShapeOf(cache.spec(), layer, static_cast<int64_t>(n), tier), capacity,
                        device, cache.meter());
    };
    group.tiers.push_back(make(0, of.tier_capacity));
    group.recent = make(kRecentBlock, of.recent_capacity);
    cuda::RowMove rows;
    rows.from_rows = chosen;
    rows.rows = Int(of.kept());
    AppendBlockMoves(from, group.tiers.back(), rows, moves);
    chosen += of.kept();
    rows.from_rows = nullptr;
    rows.from_first = Int(of.candidates);
    rows.rows = Int(from.rows() - of.candidates);
    AppendBlockMoves(from, group.recent, rows, moves);
    group.tiers.back().AppendedUnknown(of.kept());
    group.recent.Appended(from.rows() - of.candidates, of.candidates);
  }
  LaunchMoves(moves, device);
  ResizeRing(rule.query_rows, store, cache);
}

}  // namespace kvc::runtime
