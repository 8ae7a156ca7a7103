#include "runtime/cuda/apply_moves.h"

#include <algorithm>
#include <deque>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {
namespace {

// What is put into one launch, or two where rows change their basis: moves of all groups, and the
// lists of rows that they name.
class MoveBatch {
 public:
  MoveBatch(SequenceCache& cache, int64_t layer, DeviceBases& bases, CudaDevice& device)
      : cache_(cache),
        layer_(layer),
        bases_(bases),
        device_(device),
        rows_(cache, layer, bases, device) {}

  // Rows `rows` of `from`, in order, behind the rows of `to`: keys and every plane of values.
  // `scores` of these rows. With coordinates, rows get into them on the way.
  void Append(const CacheBlock& from,
              std::span<const int64_t> rows,
              std::span<const float> scores,
              int64_t group,
              const LayerCoordinates* coordinates,
              CacheBlock& to) {
    if (rows.empty()) return;
    const auto list = static_cast<int64_t>(lists_.size());
    lists_.insert(lists_.end(), rows.begin(), rows.end());
    const std::vector<int64_t>& heads = cache_.spec().layers[layer_][group].heads;
    const auto count = std::ssize(rows);
    const auto add = [&](const cuda::CachedRows& a, const cuda::CachedRows& b,
                         const cuda::RowBasis& basis) {
      Named named;
      named.projection.move = {
          a, b, nullptr, nullptr, 0, static_cast<int32_t>(to.rows()), static_cast<int32_t>(count),
          0};
      named.projection.basis = basis;
      named.list = list;
      named_.push_back(named);
    };
    const auto basis_of = [&](bool keys, int64_t head) {
      if (coordinates == nullptr) return cuda::RowBasis{};
      return keys ? bases_.Keys(cache_, *coordinates, head, device_)
                  : bases_.Values(cache_, *coordinates, head, device_);
    };
    add(rows_.Keys(from), rows_.Keys(to), basis_of(true, heads[0]));
    for (int64_t plane = 0; plane < to.shape().heads; ++plane) {
      add(rows_.Values(from, plane), rows_.Values(to, plane), basis_of(false, heads[plane]));
    }
    positions_.clear();
    for (const int64_t row : rows) {
      positions_.push_back(to.shape().positions ? from.positions()[row] : 0);
    }
    to.Appended(count, positions_, scores);
  }

  // Moves that change no basis in one launch, the others in a second one.
  void Launch() {
    if (named_.empty()) return;
    DeviceTable<int32_t> lists;
    lists.Set(lists_, device_);
    std::vector<cuda::RowMove> moves;
    std::vector<cuda::RowProjection> projections;
    for (Named& named : named_) {
      named.projection.move.from_rows = lists.data() + named.list;
      if (named.projection.basis.width == 0) {
        moves.push_back(named.projection.move);
      } else {
        projections.push_back(named.projection);
      }
    }
    LaunchMoves(moves, device_);
    LaunchProjections(projections, device_);
    named_.clear();
    lists_.clear();
  }

 private:
  struct Named {
    cuda::RowProjection projection;
    int64_t list = 0;  // its rows begin here in lists_
  };

  SequenceCache& cache_;
  int64_t layer_;
  DeviceBases& bases_;
  CudaDevice& device_;
  LayerRows rows_;
  std::vector<Named> named_;
  std::vector<int32_t> lists_;
  std::vector<int32_t> positions_;  // scratch of Append
};

// Blocks whose rows move up in place, in one launch.
class KeepBatch {
 public:
  // `rows`: of the layer.
  KeepBatch(const LayerRows& rows, CudaDevice& device) : rows_(rows), device_(device) {}

  // Only `kept` (ascending) are left.
  void Keep(std::span<const int64_t> kept, CacheBlock& block) {
    if (std::ssize(kept) < block.rows()) {
      const auto list = static_cast<int64_t>(lists_.size());
      lists_.insert(lists_.end(), kept.begin(), kept.end());
      Add(block, 0, std::ssize(kept), list);
    }
    block.Kept(kept);
  }
  void DropFront(int64_t count, CacheBlock& block) {
    if (count > 0 && count < block.rows()) Add(block, count, block.rows() - count, -1);
    block.DroppedFront(count);
  }

  void Launch() {
    if (planes_.empty()) return;
    DeviceTable<int32_t> lists;
    lists.Set(lists_, device_);
    for (size_t i = 0; i < planes_.size(); ++i) {
      if (list_of_[i] >= 0) planes_[i].kept = lists.data() + list_of_[i];
    }
    DeviceTable<cuda::KeptRows> table;
    table.Set(planes_, device_);
    cuda::KeepRows(table.data(), static_cast<int32_t>(planes_.size()), most_bytes_,
                   device_.stream());
    planes_.clear();
    list_of_.clear();
    lists_.clear();
  }

 private:
  void Add(const CacheBlock& block, int64_t first, int64_t rows, int64_t list) {
    const auto add = [&](const cuda::CachedRows& plane) {
      planes_.push_back({plane, nullptr, static_cast<int32_t>(first), static_cast<int32_t>(rows)});
      list_of_.push_back(list);
      most_bytes_ = std::max(most_bytes_, plane.stride);
    };
    add(rows_.Keys(block));
    for (int64_t plane = 0; plane < block.shape().heads; ++plane) add(rows_.Values(block, plane));
  }

  LayerRows rows_;
  CudaDevice& device_;
  std::vector<cuda::KeptRows> planes_;
  std::vector<int64_t> list_of_;  // [planes]; -1: none
  std::vector<int32_t> lists_;
  int64_t most_bytes_ = 0;
};

// A layer while rows move: every phase for all groups before the next one.
class LayerMover {
 public:
  LayerMover(const LayerMoves& moves,
             int64_t layer,
             SequenceCache& cache,
             DeviceBases& bases,
             CudaDevice& device)
      : moves_(moves),
        layer_(layer),
        cache_(cache),
        store_(cache.layer(layer)),
        batch_(cache, layer, bases, device),
        keep_(LayerRows(cache, layer, bases, device), device) {}

  void Apply() {
    for (size_t n = 0; n < moves_.groups.size(); ++n) KeepInPlace(n);
    keep_.Launch();
    for (size_t n = 0; n < moves_.groups.size(); ++n) Gather(n);
    batch_.Launch();
    for (size_t n = 0; n < moves_.groups.size(); ++n) DropRecent(n);
    keep_.Launch();
    for (size_t n = 0; n < moves_.groups.size(); ++n) {
      const int64_t capacity = moves_.groups[n].recent_capacity;
      CacheBlock& recent = store_.groups[n].recent;
      if (capacity >= 0) recent.Reserve(capacity, cache_.meter());
    }
  }

 private:
  enum class Kind { kStay, kFromWorkingBlock, kInPlace, kAnew };

  [[nodiscard]] Kind KindOf(size_t n) const {
    const size_t tiers = moves_.groups[n].tiers.size();
    if (tiers == 0) return Kind::kStay;
    if (made_.contains(n) || store_.groups[n].tiers.empty()) return Kind::kFromWorkingBlock;
    return tiers == 1 ? Kind::kInPlace : Kind::kAnew;
  }

  [[nodiscard]] CacheBlock Make(size_t n, int64_t tier, int64_t capacity) const {
    return {ShapeOf(cache_.spec(), layer_, static_cast<int64_t>(n), tier), capacity,
            cache_.device(), cache_.meter()};
  }

  // A single tier keeps its best rows where they are.
  void KeepInPlace(size_t n) {
    if (KindOf(n) != Kind::kInPlace) return;
    const TierMoves& moves = moves_.groups[n].tiers[0];
    CacheBlock& tier = store_.groups[n].tiers[0];
    std::vector<int64_t> kept;
    for (const RowSource& source : moves.rows) {
      if (source.block == 0) kept.push_back(source.row);
    }
    KVC_CHECK(std::ranges::is_sorted(kept), kInternal, "moves: expected kept rows in order");
    keep_.Keep(kept, tier);
    tier.SetScores(std::span(moves.scores).first(kept.size()));
  }

  void Gather(size_t n) {
    switch (KindOf(n)) {
      case Kind::kStay:
        return;
      case Kind::kFromWorkingBlock:
        return FromWorkingBlock(n);
      case Kind::kInPlace:
        return AppendToOnlyTier(n);
      case Kind::kAnew:
        return MakeAnew(n);
    }
  }

  void FromWorkingBlock(size_t n) {
    const RowMoves& moves = moves_.groups[n];
    GroupCache& group = store_.groups[n];
    made_.insert(n);
    old_.push_back(std::move(group.recent));
    const CacheBlock& working = old_.back();
    const LayerCoordinates* coordinates = store_.coordinates.get();
    const auto index = static_cast<int64_t>(n);
    for (size_t t = 0; t < moves.tiers.size(); ++t) {
      group.tiers.push_back(Make(n, static_cast<int64_t>(t), moves.tiers[t].capacity));
      std::vector<int64_t> rows;
      for (const RowSource& source : moves.tiers[t].rows) rows.push_back(source.row);
      batch_.Append(working, rows, moves.tiers[t].scores, index, coordinates, group.tiers.back());
    }
    group.recent = Make(n, kRecentBlock, moves.recent_capacity);
    std::vector<int64_t> newest;
    for (int64_t row = moves.leave_recent; row < working.rows(); ++row) newest.push_back(row);
    batch_.Append(working, newest, {}, index, coordinates, group.recent);
  }

  void AppendToOnlyTier(size_t n) {
    const TierMoves& moves = moves_.groups[n].tiers[0];
    GroupCache& group = store_.groups[n];
    CacheBlock& tier = group.tiers[0];
    tier.Reserve(moves.capacity, cache_.meter());
    std::vector<int64_t> rows;
    std::vector<float> scores;
    for (size_t i = 0; i < moves.rows.size(); ++i) {
      if (moves.rows[i].block != kRecentBlock) continue;
      rows.push_back(moves.rows[i].row);
      scores.push_back(moves.scores[i]);
    }
    batch_.Append(group.recent, rows, scores, static_cast<int64_t>(n), nullptr, tier);
  }

  // Tiers that take rows from each other are made beside the old ones, run by run of rows of one
  // source.
  void MakeAnew(size_t n) {
    GroupCache& group = store_.groups[n];
    std::vector<CacheBlock> tiers;
    for (size_t t = 0; t < moves_.groups[n].tiers.size(); ++t) {
      const TierMoves& moves = moves_.groups[n].tiers[t];
      CacheBlock& tier = tiers.emplace_back(Make(n, static_cast<int64_t>(t), moves.capacity));
      for (size_t begin = 0; begin < moves.rows.size();) {
        const int64_t block = moves.rows[begin].block;
        std::vector<int64_t> rows;
        size_t end = begin;
        for (; end < moves.rows.size() && moves.rows[end].block == block; ++end) {
          rows.push_back(moves.rows[end].row);
        }
        const CacheBlock& from = block == kRecentBlock ? group.recent : group.tiers[block];
        const std::span<const float> scores(moves.scores);
        batch_.Append(from, rows, scores.subspan(begin, end - begin), static_cast<int64_t>(n),
                      nullptr, tier);
        begin = end;
      }
    }
    for (CacheBlock& tier : group.tiers) old_.push_back(std::move(tier));
    group.tiers = std::move(tiers);
  }

  void DropRecent(size_t n) {
    if (made_.contains(n)) return;
    keep_.DropFront(moves_.groups[n].leave_recent, store_.groups[n].recent);
  }

  const LayerMoves& moves_;
  int64_t layer_;
  SequenceCache& cache_;
  LayerCache& store_;
  MoveBatch batch_;
  KeepBatch keep_;
  std::deque<CacheBlock> old_;  // that rows come from, until they are launched
  std::set<size_t> made_;       // groups whose working block became tiers
};

}  // namespace

void ApplyMovesOnDevice(const LayerMoves& moves,
                        int64_t layer,
                        SequenceCache& cache,
                        DeviceBases& bases,
                        CudaDevice& device) {
  LayerCache& store = cache.layer(layer);
  KVC_CHECK(moves.groups.size() == store.groups.size(), kInternal,
            "moves: expected {} groups, got {}", store.groups.size(), moves.groups.size());
  store.tables.reset();
  LayerMover(moves, layer, cache, bases, device).Apply();
  ResizeRing(moves.query_rows, store, cache);
}

}  // namespace kvc::runtime
