#include "runtime/cuda/score_rows.h"

#include <algorithm>

#include "core/cache/cache_bases.h"
#include "core/cache/cache_spec.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"

namespace kvc::runtime {
namespace {

cuda::RowMove Move(const cuda::CachedRows& from,
                   const cuda::CachedRows& to,
                   int64_t to_first,
                   int64_t rows) {
  return {from, to, nullptr, nullptr, 0, Int(to_first), Int(rows), 0};
}

// A tier's format where its rounding counts as a loss: where it is coarser than the cache's, or
// scales are found anew.
const RowFormat* Rounding(const RowFormat& tier, const RowFormat& cache) {
  return tier != cache || tier.scales != RowScales::kNone ? &tier : nullptr;
}

}  // namespace

ScoreRows::ScoreRows(int64_t layer,
                     const CudaModel& model,
                     const SequenceCache& cache,
                     DeviceBases& bases,
                     CudaDevice& device)
    : layer_(layer),
      model_(model),
      cache_(cache),
      store_(cache.layer(layer)),
      bases_(bases),
      device_(device),
      rows_(cache, layer, bases, device) {}

std::vector<const CacheBlock*> ScoreRows::BlocksOf(int64_t group) const {
  const GroupCache& held = store_.groups[group];
  std::vector<const CacheBlock*> blocks;
  for (const CacheBlock& tier : held.tiers) {
    if (tier.rows() > 0) blocks.push_back(&tier);
  }
  if (held.recent.rows() > 0 || blocks.empty()) blocks.push_back(&held.recent);
  return blocks;
}

int64_t ScoreRows::Rows(const HeadPlace& place) const {
  int64_t rows = 0;
  for (const CacheBlock* block : BlocksOf(place.group)) rows += block->rows();
  return rows;
}

cuda::CachedRows ScoreRows::MakeRows(cuda::RowCode code,
                                     int64_t rows,
                                     int64_t width,
                                     const CodeSteps& steps) {
  cuda::CachedRows made = {nullptr, code, Int(width), 0};
  rows_.SetSteps(steps, made);
  made.stride = cuda::CachedRowBytes(made);
  memory_.emplace_back(std::max<int64_t>(rows, 1) * made.stride, device_, nullptr);
  made.data = DeviceMemory::Of(memory_.back());
  return made;
}

const int32_t* ScoreRows::PositionsOf(const CacheBlock& block) {
  auto [place, fresh] = positions_.try_emplace(&block);
  if (fresh) place->second.Set(block.positions(), device_);
  return place->second.data();
}

cuda::CachedRows ScoreRows::Gather(std::span<const cuda::CachedRows> rows,
                                   std::span<const CacheBlock* const> blocks,
                                   const cuda::RowBasis& basis) {
  if (blocks.size() == 1 && basis.width == 0) return rows.front();
  int64_t count = 0;
  for (const CacheBlock* block : blocks) count += block->rows();
  const int64_t width = basis.width > 0 ? basis.width : rows.front().width;
  const cuda::CachedRows all = MakeRows(cuda::RowCode::kF32, count, width);
  int64_t first = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const cuda::RowMove move = Move(rows[i], all, first, blocks[i]->rows());
    if (basis.width > 0) {
      restored_.push_back({move, basis, cuda::BasisWay::kFromCoordinates});
    } else {
      moves_.push_back(move);
    }
    first += blocks[i]->rows();
  }
  return all;
}

cuda::CachedRows ScoreRows::Rebuild(const HeadPlace& place,
                                    int64_t width,
                                    const RowFormat* format) {
  const cuda::CachedRows all =
      MakeRows(cuda::RowCode::kF32, Rows(place), model_.plan().attentions[layer_].head_width);
  int64_t first = 0;
  for (const CacheBlock* block : BlocksOf(place.group)) {
    cuda::KeyRebuild one;
    one.how = model_.latents(layer_)[place.head];
    one.latents = rows_.Keys(*block);
    const int64_t kept = std::min<int64_t>(one.latents.width, width);
    if (format != nullptr) {
      const cuda::CachedRows held = MakeRows(cuda::RowCodeOf(*format), block->rows(), kept);
      moves_.push_back(Move(one.latents, held, 0, block->rows()));
      one.latents = held;
    }
    one.latents.width = Int(kept);
    one.keys = all;
    one.keys.data = static_cast<std::byte*>(all.data) + first * all.stride;
    one.positions = PositionsOf(*block);
    one.rows = Int(block->rows());
    rebuilds_.push_back(one);
    first += block->rows();
  }
  return all;
}

cuda::CachedRows ScoreRows::Keys(const HeadPlace& place) {
  if (model_.plan().attentions[layer_].latent) {
    return Rebuild(place, cache_.spec().layers[layer_][place.group].key_width, nullptr);
  }
  const std::vector<const CacheBlock*> blocks = BlocksOf(place.group);
  std::vector<cuda::CachedRows> rows;
  rows.reserve(blocks.size());
  for (const CacheBlock* block : blocks) rows.push_back(rows_.Keys(*block));
  cuda::RowBasis basis;
  if (store_.in_coordinates()) {
    basis = bases_.Keys(cache_, *store_.coordinates, place.head, device_);
  }
  return Gather(rows, blocks, basis);
}

cuda::CachedRows ScoreRows::Values(const HeadPlace& place) {
  const std::vector<const CacheBlock*> blocks = BlocksOf(place.group);
  std::vector<cuda::CachedRows> rows;
  rows.reserve(blocks.size());
  for (const CacheBlock* block : blocks) rows.push_back(rows_.Values(*block, place.plane));
  cuda::RowBasis basis;
  if (store_.in_coordinates()) {
    basis = bases_.Values(cache_, *store_.coordinates, place.head, device_);
  }
  return Gather(rows, blocks, basis);
}

cuda::CachedRows ScoreRows::Approximate(const HeadPlace& place,
                                        const cuda::CachedRows& rows,
                                        const cuda::RowBasis& basis,
                                        int64_t width,
                                        const RowFormat* format,
                                        CodeSteps steps) {
  const int64_t count = Rows(place);
  const cuda::RowCode code = format != nullptr ? cuda::RowCodeOf(*format) : cuda::RowCode::kF32;
  const cuda::CachedRows coordinates = MakeRows(code, count, width, steps);
  const cuda::CachedRows all = MakeRows(cuda::RowCode::kF32, count, basis.width);
  narrowed_.push_back({Move(rows, coordinates, 0, count), basis, cuda::BasisWay::kToCoordinates});
  widened_.push_back({Move(coordinates, all, 0, count), basis, cuda::BasisWay::kFromCoordinates});
  return all;
}

CodeSteps ScoreRows::StepsOf(const RowFormat& format, int64_t head, bool keys) const {
  if (!NeedsSteps(format)) return nullptr;
  const LayerBases& bases = cache_.spec().bases->at(static_cast<size_t>(layer_));
  return keys ? KeySteps(bases, format, head) : ValueSteps(bases, format, head);
}

cuda::CachedRows ScoreRows::TierKeys(const HeadPlace& place,
                                     int64_t t,
                                     const cuda::CachedRows& keys) {
  const CacheSpec& spec = cache_.spec();
  const int64_t full = spec.layers[layer_][place.group].key_width;
  const int64_t width = TierWidth(full, spec.tiers[t].key_share);
  const RowFormat format = KeyFormat(spec, t);
  if (width == full && format == spec.key_format) return {};
  const RowFormat* rounding = Rounding(format, spec.key_format);
  if (model_.plan().attentions[layer_].latent) return Rebuild(place, width, rounding);
  return Approximate(place, keys, bases_.Keys(cache_, *store_.coordinates, place.head, device_),
                     width, rounding, StepsOf(format, place.head, true));
}

cuda::CachedRows ScoreRows::TierValues(const HeadPlace& place,
                                       int64_t t,
                                       const cuda::CachedRows& values) {
  const CacheSpec& spec = cache_.spec();
  const int64_t full = spec.layers[layer_][place.group].value_width;
  const int64_t width = TierWidth(full, spec.tiers[t].value_share);
  const RowFormat format = ValueFormat(spec, t);
  if (width == full && format == spec.value_format) return {};
  return Approximate(place, values, bases_.Values(cache_, *store_.coordinates, place.head, device_),
                     width, Rounding(format, spec.value_format),
                     StepsOf(format, place.head, false));
}

void ScoreRows::Launch() {
  LaunchMoves(moves_, device_);
  if (!rebuilds_.empty()) {
    DeviceTable<cuda::KeyRebuild> table;
    table.Set(rebuilds_, device_);
    cuda::RebuildKeys(table.data(), Int(std::ssize(rebuilds_)), cuda::MostRows(rebuilds_),
                      device_.stream());
  }
  LaunchProjections(restored_, device_);
  LaunchProjections(narrowed_, device_);
  LaunchProjections(widened_, device_);
}

}  // namespace kvc::runtime
