#include "runtime/policy/tiering.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/cache/kv_layout.h"
#include "scorers/tier_loss.h"
#include "solver/tier_allocator.h"

namespace kvc::runtime {
namespace {

constexpr float kForbidden = std::numeric_limits<float>::infinity();

// Where a row lies now.
struct Place {
  const CacheBlock* block = nullptr;
  int64_t row = 0;
  int64_t tier = 0;  // whose widths it has; 0 also for rows of the working and the recent block
};

// Whether a row of `from` holds everything that `to` keeps.
bool Covers(const BlockShape& from, const BlockShape& to) {
  return from.key_width >= to.key_width && from.value_width >= to.value_width;
}

// The tier of each place, or -1: least loss within the bytes of `tier_rows` rows of full width.
std::vector<int64_t> ChooseTiers(const SequenceCache& cache,
                                 int64_t layer,
                                 int64_t n,
                                 std::span<const Place> places,
                                 GroupScores& scores,
                                 int64_t tier_rows) {
  const int64_t tiers = std::ssize(cache.spec().tiers);
  std::vector<BlockShape> shapes;
  std::vector<int64_t> costs = {0};  // [1 + tiers]: dropped, then the tiers
  for (int64_t t = 0; t < tiers; ++t) {
    shapes.push_back(cache.ShapeOf(layer, n, t));
    costs.push_back(shapes.back().BytesPerRow());
  }
  const auto count = std::ssize(places);
  const MatrixD shares(scores.losses.data(), count, tiers);
  scorers::ScaleToScores(std::span(scores.scores).first(places.size()), shares);
  std::vector<float> losses(static_cast<size_t>(count * (1 + tiers)), kForbidden);
  for (int64_t j = 0; j < count; ++j) {
    float* row = losses.data() + j * (1 + tiers);
    const int64_t now = places[j].tier;
    row[0] = static_cast<float>(shares(j, 0));
    for (int64_t t = 1; t < tiers; ++t) {
      if (Covers(shapes[now], shapes[t])) row[1 + t] = static_cast<float>(shares(j, t));
    }
    row[1 + now] = 0.0F;  // nothing is lost by staying
  }
  const solver::TierGroup group = {count, losses, costs};
  const solver::TierAllocation chosen =
      solver::AllocateTiers(std::span(&group, 1), tier_rows * costs[1]);
  std::vector<int64_t> choice;
  for (const uint8_t column : chosen.choice) choice.push_back(int64_t{column} - 1);
  return choice;
}

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
    ConvertToFloat(block.dtype, data + picked[i] * block.stride * DTypeBytes(block.dtype),
                   block.width, rows.data() + static_cast<int64_t>(i) * block.width);
  }
  return rows;
}

// Appends rows `picked` of a working block to `to`, in coordinates. scores: of all rows, or none.
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
  const std::vector<float> picked_keys = Pick(from.keys(), picked);
  Project({picked_keys.data(), count, from.shape().key_width}, coordinates.keys(group.heads[0]),
          key_rows);
  for (int64_t plane = 0; plane < shape.heads; ++plane) {
    const std::vector<float> picked_values = Pick(from.values(plane), picked);
    Project({picked_values.data(), count, from.shape().value_width},
            coordinates.values(group.heads[plane]),
            value_rows.ColRange(plane * shape.value_width, shape.value_width));
  }
  std::vector<int32_t> positions;
  std::vector<float> kept_scores;
  for (const int64_t row : picked) {
    if (shape.positions) positions.push_back(from.positions()[row]);
    if (shape.scores) kept_scores.push_back(scores[row]);
  }
  to.Append(key_rows, value_rows, positions, kept_scores);
}

// Indices of the places that got each tier.
std::vector<std::vector<int64_t>> ByTier(std::span<const int64_t> choice, int64_t tiers) {
  std::vector<std::vector<int64_t>> members(static_cast<size_t>(tiers));
  for (int64_t j = 0; j < std::ssize(choice); ++j) {
    if (choice[j] >= 0) members[choice[j]].push_back(j);
  }
  return members;
}

}  // namespace

void BuildTiers(
    SequenceCache& cache, int64_t layer, int64_t n, GroupScores& scores, int64_t tier_rows) {
  const CacheSpec& spec = cache.spec();
  const CacheGroup& group = spec.layers[layer][n];
  LayerCache& layer_cache = cache.layer(layer);
  const CacheBlock working = std::move(layer_cache.groups[n].recent);
  const int64_t recent_rows = RecentAfterPrompt(spec, working.rows());
  std::vector<Place> places;
  for (int64_t row = 0; row < working.rows() - recent_rows; ++row) {
    places.push_back({&working, row, 0});
  }
  const std::vector<int64_t> choice = ChooseTiers(cache, layer, n, places, scores, tier_rows);
  const int64_t tiers = std::ssize(spec.tiers);
  std::vector<CacheBlock> blocks;
  const auto members = ByTier(choice, tiers);
  for (int64_t t = 0; t < tiers; ++t) {
    CacheBlock& block =
        blocks.emplace_back(cache.ShapeOf(layer, n, t), std::ssize(members[t]), cache.meter());
    AppendProjected(working, members[t], scores.scores, group, *layer_cache.coordinates, block);
  }
  CacheBlock recent(cache.ShapeOf(layer, n, -1), spec.window + spec.margin, cache.meter());
  std::vector<int64_t> newest;
  for (int64_t row = std::ssize(places); row < working.rows(); ++row) newest.push_back(row);
  AppendProjected(working, newest, {}, group, *layer_cache.coordinates, recent);
  layer_cache.groups[n].tiers = std::move(blocks);
  layer_cache.groups[n].recent = std::move(recent);
}

void ReallocateTiers(SequenceCache& cache,
                     int64_t layer,
                     int64_t n,
                     GroupScores& scores,
                     int64_t moving,
                     int64_t tier_rows) {
  GroupCache& group = cache.layer(layer).groups[n];
  const int64_t tiers = std::ssize(cache.spec().tiers);
  std::vector<Place> places;
  for (int64_t t = 0; t < tiers; ++t) {
    for (int64_t row = 0; row < group.tiers[t].rows(); ++row) {
      places.push_back({&group.tiers[t], row, t});
    }
  }
  for (int64_t row = 0; row < moving; ++row) places.push_back({&group.recent, row, 0});
  const std::vector<int64_t> choice = ChooseTiers(cache, layer, n, places, scores, tier_rows);
  const auto members = ByTier(choice, tiers);
  std::vector<CacheBlock> blocks;
  for (int64_t t = 0; t < tiers; ++t) {
    CacheBlock& block =
        blocks.emplace_back(cache.ShapeOf(layer, n, t), std::ssize(members[t]), cache.meter());
    for (const int64_t j : members[t]) {
      block.AppendRow(*places[j].block, places[j].row, scores.scores[j]);
    }
  }
  group.tiers = std::move(blocks);
  group.recent.DropFront(moving);
}

}  // namespace kvc::runtime
