#include "runtime/cpu/apply_moves.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/head_basis.h"

namespace kvc::runtime {
namespace {

// The first columns of a float row's coordinates, or of the row itself without a basis.
void Project(ConstMatrixF rows, const HeadBasis& basis, MatrixF out) {
  if (basis.width() > 0) {
    basis.ToCoordinates(rows, out);
    return;
  }
  for (int64_t t = 0; t < rows.rows; ++t) std::copy_n(rows.row(t), out.cols, out.row(t));
}

// Rows `picked` of a block as float.
std::vector<float> Pick(const kernels::RowBlock& block, std::span<const int64_t> picked) {
  std::vector<float> rows(picked.size() * static_cast<size_t>(block.width));
  const auto* data = static_cast<const std::byte*>(block.data);
  for (size_t i = 0; i < picked.size(); ++i) {
    DecodeRows(data + picked[i] * block.stride, block.format, block.stride,
               {rows.data() + static_cast<int64_t>(i) * block.width, 1, block.width}, block.steps);
  }
  return rows;
}

// Appends rows `picked` of a working block to `to`, in coordinates.
void AppendProjected(const CacheBlock& from,
                     std::span<const int64_t> picked,
                     std::span<const float> scores,
                     const CacheGroup& group,
                     const LayerCoordinates& coordinates,
                     CacheBlock& to) {
  const auto count = std::ssize(picked);
  const BlockShape& shape = to.shape();
  std::vector<float> keys(static_cast<size_t>(count * shape.key_width));
  std::vector<float> values(static_cast<size_t>(count * shape.heads * shape.value_width));
  const MatrixF key_rows(keys.data(), count, shape.key_width);
  const MatrixF value_rows(values.data(), count, shape.heads * shape.value_width);
  const std::vector<float> picked_keys = Pick(KeysOf(from), picked);
  Project({picked_keys.data(), count, from.shape().key_width},
          KeyBasis(coordinates, group.heads[0]), key_rows);
  for (int64_t plane = 0; plane < shape.heads; ++plane) {
    const std::vector<float> picked_values = Pick(ValuesOf(from, plane), picked);
    Project({picked_values.data(), count, from.shape().value_width},
            ValueBasis(coordinates, group.heads[plane]),
            value_rows.ColRange(plane * shape.value_width, shape.value_width));
  }
  std::vector<int32_t> positions;
  for (const int64_t row : picked) {
    if (shape.positions) positions.push_back(from.positions()[row]);
  }
  AppendRows(key_rows, value_rows, positions, scores, to);
}

// One group of a layer while rows move.
class GroupMover {
 public:
  GroupMover(int64_t layer, int64_t n, SequenceCache& cache)
      : layer_(layer), n_(n), cache_(cache), store_(cache.layer(layer)), group_(store_.groups[n]) {}

  void Apply(const RowMoves& moves) {
    if (!moves.tiers.empty() && group_.tiers.empty()) {
      FromWorkingBlock(moves);
      return;
    }
    if (moves.tiers.size() == 1) {
      InPlace(moves.tiers[0]);
    } else if (!moves.tiers.empty()) {
      Anew(moves.tiers);
    }
    DropFront(moves.leave_recent, group_.recent);
    if (moves.recent_capacity >= 0) group_.recent.Reserve(moves.recent_capacity, cache_.meter());
  }

 private:
  [[nodiscard]] CacheBlock Make(int64_t tier, int64_t capacity) const {
    return {ShapeOf(cache_.spec(), layer_, n_, tier), capacity, cache_.device(), cache_.meter()};
  }

  void FromWorkingBlock(const RowMoves& moves) {
    const CacheBlock working = std::move(group_.recent);
    std::vector<CacheBlock> tiers;
    for (size_t t = 0; t < moves.tiers.size(); ++t) {
      std::vector<int64_t> rows;
      for (const RowSource& source : moves.tiers[t].rows) rows.push_back(source.row);
      tiers.push_back(Make(static_cast<int64_t>(t), moves.tiers[t].capacity));
      Take(working, rows, moves.tiers[t].scores, tiers.back());
    }
    std::vector<int64_t> newest;
    for (int64_t row = moves.leave_recent; row < working.rows(); ++row) newest.push_back(row);
    CacheBlock recent = Make(kRecentBlock, moves.recent_capacity);
    Take(working, newest, std::vector<float>(newest.size(), 0.0F), recent);
    group_.tiers = std::move(tiers);
    group_.recent = std::move(recent);
  }

  void Take(const CacheBlock& working,
            std::span<const int64_t> rows,
            std::span<const float> scores,
            CacheBlock& to) const {
    if (store_.coordinates != nullptr) {
      AppendProjected(working, rows, scores, cache_.spec().layers[layer_][n_], *store_.coordinates,
                      to);
      return;
    }
    for (size_t i = 0; i < rows.size(); ++i) AppendRow(working, rows[i], scores[i], to);
  }

  void InPlace(const TierMoves& moves) {
    CacheBlock& tier = group_.tiers.at(0);
    std::vector<int64_t> kept;
    for (const RowSource& source : moves.rows) {
      if (source.block == 0) kept.push_back(source.row);
    }
    KVC_CHECK(std::ranges::is_sorted(kept), kInternal, "moves: expected kept rows in order");
    KeepRows(kept, tier);
    tier.SetScores(std::span(moves.scores).first(kept.size()));
    tier.Reserve(moves.capacity, cache_.meter());
    for (size_t i = kept.size(); i < moves.rows.size(); ++i) {
      AppendRow(group_.recent, moves.rows[i].row, moves.scores[i], tier);
    }
  }

  void Anew(std::span<const TierMoves> moves) {
    std::vector<CacheBlock> tiers;
    for (size_t t = 0; t < moves.size(); ++t) {
      CacheBlock& tier = tiers.emplace_back(Make(static_cast<int64_t>(t), moves[t].capacity));
      for (size_t i = 0; i < moves[t].rows.size(); ++i) {
        const RowSource& source = moves[t].rows[i];
        const CacheBlock& from =
            source.block == kRecentBlock ? group_.recent : group_.tiers[source.block];
        AppendRow(from, source.row, moves[t].scores[i], tier);
      }
    }
    group_.tiers = std::move(tiers);
  }

  int64_t layer_;
  int64_t n_;
  SequenceCache& cache_;
  LayerCache& store_;
  GroupCache& group_;
};

}  // namespace

void ApplyMoves(const LayerMoves& moves, int64_t layer, SequenceCache& cache) {
  LayerCache& store = cache.layer(layer);
  KVC_CHECK(moves.groups.size() == store.groups.size(), kInternal,
            "moves: expected {} groups, got {}", store.groups.size(), moves.groups.size());
  store.tables.reset();
  for (size_t n = 0; n < moves.groups.size(); ++n) {
    GroupMover(layer, static_cast<int64_t>(n), cache).Apply(moves.groups[n]);
  }
  ResizeRing(moves.query_rows, store, cache);
}

}  // namespace kvc::runtime
