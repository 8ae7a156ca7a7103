#include "runtime/cuda/block_rows.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/base/row_format.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {
namespace {

cuda::RowBasis ReflectorsOf(const LayerCoordinates& coordinates, const BasisPlace& place) {
  cuda::RowBasis basis;
  basis.reflectors = DeviceMemory::Floats(coordinates.reflectors()) + place.offset;
  basis.count = static_cast<int32_t>(place.rows);
  basis.width = static_cast<int32_t>(place.width);
  return basis;
}

// The [width, width] corners of head `head`'s blocks of bases [G, full, full].
cuda::RowBasis CornersOf(const float* forward,
                         const float* back,
                         const float* mean,
                         int64_t full,
                         int64_t head,
                         int64_t width) {
  cuda::RowBasis basis;
  basis.forward = forward + head * full * full;
  basis.back = back + head * full * full;
  basis.mean = mean + head * full;
  basis.stride = full;
  basis.width = static_cast<int32_t>(width);
  return basis;
}

// In the order in which they lie on the device.
std::array<const std::vector<float>*, 8> PartsOf(const LayerBases& bases) {
  return {&bases.key,    &bases.query,      &bases.key_mean,  &bases.value,
          &bases.output, &bases.value_mean, &bases.key_steps, &bases.value_steps};
}

}  // namespace

cuda::CachedRows LayerRows::Keys(const CacheBlock& block) const {
  const BlockShape& shape = block.shape();
  return Plane(DeviceMemory::Of(block.keys()), shape.key_format, shape.key_width,
               shape.KeyRowBytes(), shape.key_steps);
}

cuda::CachedRows LayerRows::Values(const CacheBlock& block, int64_t plane) const {
  const BlockShape& shape = block.shape();
  return Plane(DeviceMemory::Of(block.values()) + block.PlaneOffset(plane), shape.value_format,
               shape.value_width, shape.ValueRowBytes(plane), shape.ValueSteps(plane));
}

cuda::CachedRows LayerRows::Plane(
    void* data, const RowFormat& format, int64_t width, int64_t stride, CodeSteps steps) const {
  cuda::CachedRows rows = {data, cuda::RowCodeOf(format), static_cast<int32_t>(width), stride};
  SetSteps(steps, rows);
  return rows;
}

void LayerRows::SetSteps(const CodeSteps& steps, cuda::CachedRows& rows) const {
  if (steps.data == nullptr) return;
  KVC_CHECK(cache_ != nullptr, kInternal, "cuda: expected rows without steps, got some with");
  cuda::SetSteps(steps, bases_->Steps(*cache_, layer_, steps, *device_), rows);
}

cuda::CachedRows RowsAt(cuda::CachedRows rows, int64_t row) {
  rows.data = static_cast<std::byte*>(rows.data) + row * rows.stride;
  return rows;
}

cuda::CachedRows FloatColumns(const cuda::Rows& rows, int64_t first, int64_t width) {
  return {static_cast<float*>(rows.data) + first, cuda::RowCode::kF32, static_cast<int32_t>(width),
          rows.stride * kFloatBytes};
}

void AppendQueryMoves(const cuda::Rows& q,
                      int64_t stored_width,
                      const QueryRing& ring,
                      std::vector<cuda::RowMove>& moves) {
  if (ring.rows() == 0) return;
  const int64_t first = std::max<int64_t>(0, q.rows - ring.rows());
  for (int64_t h = 0; h < ring.num_heads(); ++h) {
    cuda::RowMove move;
    move.from = FloatColumns(q, h * stored_width, ring.width(h));
    move.to = {DeviceMemory::Floats(ring.buffer()) + ring.offset(h), cuda::RowCode::kF32,
               static_cast<int32_t>(ring.width(h)), ring.width() * kFloatBytes};
    move.from_first = static_cast<int32_t>(first);
    move.to_first = static_cast<int32_t>(ring.RowOf(ring.pushed() + first));
    move.rows = static_cast<int32_t>(q.rows - first);
    move.ring = static_cast<int32_t>(ring.rows());
    moves.push_back(move);
  }
}

void AppendBlockMoves(const CacheBlock& from,
                      const CacheBlock& to,
                      const cuda::RowMove& rows,
                      std::vector<cuda::RowMove>& moves) {
  if (rows.rows == 0) return;  // a block may have no memory
  const auto add = [&](const cuda::CachedRows& a, const cuda::CachedRows& b) {
    cuda::RowMove& move = moves.emplace_back(rows);
    move.from = a;
    move.to = b;
  };
  const LayerRows plain;
  add(plain.Keys(from), plain.Keys(to));
  for (int64_t plane = 0; plane < to.shape().heads; ++plane) {
    add(plain.Values(from, plane), plain.Values(to, plane));
  }
}

void CountFaults(CudaDevice& device, cuda::RowMove& move) {
  if (cuda::HasSteps(move.to.code)) move.faults = device.faults();
}

void LaunchMoves(std::vector<cuda::RowMove> moves, CudaDevice& device) {
  if (moves.empty()) return;
  for (cuda::RowMove& move : moves) CountFaults(device, move);
  DeviceTable<cuda::RowMove> table;
  table.Set(moves, device);
  cuda::MoveRows(table.data(), static_cast<int32_t>(moves.size()), cuda::MostRows(moves),
                 device.stream());
}

void LaunchProjections(std::vector<cuda::RowProjection> projections, CudaDevice& device) {
  if (projections.empty()) return;
  for (cuda::RowProjection& projection : projections) CountFaults(device, projection.move);
  DeviceTable<cuda::RowProjection> table;
  table.Set(projections, device);
  cuda::ProjectRows(table.data(), static_cast<int32_t>(projections.size()),
                    cuda::SizeOf(projections), device.stream());
}

const float* DeviceBases::Find(const SequenceCache& cache,
                               const LayerBases& bases,
                               CudaDevice& device) {
  const auto found = calibrated_.find(&bases);
  if (found != calibrated_.end()) return static_cast<const float*>(found->second.floats.data());
  OnDevice own;
  own.owner = cache.spec().bases;
  std::vector<float> floats;
  for (const std::vector<float>* part : PartsOf(bases)) {
    floats.insert(floats.end(), part->begin(), part->end());
  }
  own.floats = cuda::DeviceBuffer(floats.size() * sizeof(float));
  device.Upload(std::as_bytes(std::span(floats)), own.floats.data());
  const OnDevice& kept = calibrated_.emplace(&bases, std::move(own)).first->second;
  return static_cast<const float*>(kept.floats.data());
}

cuda::RowBasis DeviceBases::Keys(const SequenceCache& cache,
                                 const LayerCoordinates& coordinates,
                                 int64_t head,
                                 CudaDevice& device) {
  const BasisPlace& place = coordinates.keys(head);
  if (place.width == 0) return {};
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return ReflectorsOf(coordinates, place);
  const float* key = Find(cache, *bases, device);
  const float* query = key + bases->key.size();
  const float* mean = query + bases->query.size();
  return CornersOf(key, query, mean, bases->key_width, head, place.width);
}

cuda::RowBasis DeviceBases::Values(const SequenceCache& cache,
                                   const LayerCoordinates& coordinates,
                                   int64_t head,
                                   CudaDevice& device) {
  const BasisPlace& place = coordinates.values(head);
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return ReflectorsOf(coordinates, place);
  const float* value = Find(cache, *bases, device) + bases->key.size() + bases->query.size() +
                       bases->key_mean.size();
  const float* output = value + bases->value.size();
  const float* mean = output + bases->output.size();
  return CornersOf(value, output, mean, bases->value_width, head, place.width);
}

const float* DeviceBases::Steps(const SequenceCache& cache,
                                int64_t layer,
                                CodeSteps steps,
                                CudaDevice& device) {
  if (steps == nullptr) return nullptr;
  const LayerBases& bases = cache.spec().bases->at(static_cast<size_t>(layer));
  const float* place = Find(cache, bases, device);
  for (const std::vector<float>* part : PartsOf(bases)) {
    const auto offset =
        reinterpret_cast<uintptr_t>(steps.data) - reinterpret_cast<uintptr_t>(part->data());
    if (offset < part->size() * sizeof(float)) return place + offset / sizeof(float);
    place += part->size();
  }
  KVC_THROW(kInternal, "cuda: expected steps of layer {}'s bases, got others", layer);
}

}  // namespace kvc::runtime
