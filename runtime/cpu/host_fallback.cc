#include "runtime/cpu/host_fallback.h"

#include "runtime/cpu/host_device.h"
#include "runtime/cpu/host_memory.h"
#include "runtime/cpu/scoring.h"

namespace kvc::runtime {
namespace {

void Download(const Buffer& from, int64_t offset, int64_t bytes, std::byte* to) {
  if (bytes > 0) from.device()->ToHost(from, offset, to, bytes);
}

CacheBlock DownloadBlock(const CacheBlock& block, CacheMeter& meter) {
  const BlockShape& shape = block.shape();
  CacheBlock copy(shape, block.rows(), SharedHostDevice(), meter);
  Download(block.keys(), 0, block.rows() * shape.KeyRowBytes(), HostMemory::Of(copy.keys()));
  for (int64_t plane = 0; plane < shape.heads; ++plane) {
    Download(block.values(), block.PlaneOffset(plane), copy.PlaneBytes(plane),
             HostMemory::Of(copy.values()) + copy.PlaneOffset(plane));
  }
  copy.Appended(block.rows(), block.positions(), block.Scores());
  return copy;
}

}  // namespace

LayerCache DownloadLayer(const LayerCache& layer, CacheMeter& meter) {
  LayerCache copy;
  for (const GroupCache& group : layer.groups) {
    GroupCache& target = copy.groups.emplace_back();
    for (const CacheBlock& tier : group.tiers) target.tiers.push_back(DownloadBlock(tier, meter));
    target.recent = DownloadBlock(group.recent, meter);
  }
  copy.queries = layer.queries.WithRoomOn(SharedHostDevice(), meter);
  const int64_t row_bytes = layer.queries.width() * static_cast<int64_t>(sizeof(float));
  Download(layer.queries.buffer(), 0, layer.queries.count() * row_bytes,
           HostMemory::Of(copy.queries.buffer()));
  copy.residual_energy = layer.residual_energy;
  if (layer.coordinates != nullptr) {
    copy.coordinates = std::make_unique<LayerCoordinates>(
        layer.coordinates->WithRoomOn(SharedHostDevice(), meter));
    const Buffer& reflectors = layer.coordinates->reflectors();
    Download(reflectors, 0, reflectors.bytes(), HostMemory::Of(copy.coordinates->reflectors()));
  }
  return copy;
}

std::vector<GroupScores> ScoreOnHost(const ScoreRequest& request,
                                     const CpuModel& model,
                                     ConstMatrixF prompt_queries,
                                     const SequenceCache& cache,
                                     ThreadPool& pool) {
  CacheMeter meter;  // of the copy alone
  const LayerCache layer = DownloadLayer(cache.layer(request.layer), meter);
  // In floats, as a device scores.
  return ScoreLayer(MakeScoring(request, model, cache.spec(), prompt_queries, pool,
                                kernels::InputRounding::kNone),
                    cache.spec(), layer);
}

void FindCoordinatesOnHost(int64_t layer, SequenceCache& cache, ThreadPool& pool) {
  CacheMeter meter;
  const LayerCache copy = DownloadLayer(cache.layer(layer), meter);
  FindCoordinates(cache.spec().layers[layer], copy, pool);
  const Buffer& found = copy.coordinates->reflectors();
  if (found.bytes() == 0) return;
  const Buffer& to = cache.layer(layer).coordinates->reflectors();
  to.device()->ToDevice(HostMemory::Of(found), to, 0, found.bytes());
}

}  // namespace kvc::runtime
