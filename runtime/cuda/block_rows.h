#pragma once
// Blocks, rings and bases of a cache as the device's kernels take them.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/base/row_format.h"
#include "core/cache/cache_bases.h"
#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "runtime/cache/cache_block.h"
#include "runtime/cache/coordinates.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// The bases of layers in the device's memory. Calibrated ones are uploaded when they are first
// asked for, and kept.
class DeviceBases {
 public:
  // The bases of a head's keys and values in a layer of `cache`; without width where rows are
  // stored as they are.
  [[nodiscard]] cuda::RowBasis Keys(const SequenceCache& cache,
                                    const LayerCoordinates& coordinates,
                                    int64_t head,
                                    CudaDevice& device);
  [[nodiscard]] cuda::RowBasis Values(const SequenceCache& cache,
                                      const LayerCoordinates& coordinates,
                                      int64_t head,
                                      CudaDevice& device);
  // The same place in the device's copy of steps that lie in the bases of a layer of `cache`; null
  // for null.
  [[nodiscard]] const float* Steps(const SequenceCache& cache,
                                   int64_t layer,
                                   CodeSteps steps,
                                   CudaDevice& device);

 private:
  // The parts of LayerBases, one after the other.
  struct OnDevice {
    cuda::DeviceBuffer floats;
    std::shared_ptr<const std::vector<LayerBases>> owner;
  };
  const float* Find(const SequenceCache& cache, const LayerBases& bases, CudaDevice& device);

  std::map<const LayerBases*, OnDevice> calibrated_;
};

// The rows of a layer's blocks as the device's kernels take them. Good until a block is
// re-allocated; cache, bases and device must outlive it.
class LayerRows {
 public:
  // Of blocks whose rows need no steps: for others it throws kInternal.
  LayerRows() = default;
  LayerRows(const SequenceCache& cache, int64_t layer, DeviceBases& bases, CudaDevice& device)
      : cache_(&cache), layer_(layer), bases_(&bases), device_(&device) {}

  [[nodiscard]] cuda::CachedRows Keys(const CacheBlock& block) const;
  // Values of the group's head number `plane`.
  [[nodiscard]] cuda::CachedRows Values(const CacheBlock& block, int64_t plane) const;
  // Says in `rows`, whose code is set, how they lie: `steps` are of the layer's bases.
  void SetSteps(const CodeSteps& steps, cuda::CachedRows& rows) const;

 private:
  [[nodiscard]] cuda::CachedRows Plane(
      void* data, const RowFormat& format, int64_t width, int64_t stride, CodeSteps steps) const;

  const SequenceCache* cache_ = nullptr;
  int64_t layer_ = 0;
  DeviceBases* bases_ = nullptr;
  CudaDevice* device_ = nullptr;
};

// The rows from number `row` on.
[[nodiscard]] cuda::CachedRows RowsAt(cuda::CachedRows rows, int64_t row);
// Columns first .. first + width of float rows.
[[nodiscard]] cuda::CachedRows FloatColumns(const cuda::Rows& rows, int64_t first, int64_t width);
// Moves `rows` of a layer's queries q [rows, H * stored_width] to a ring that has been given
// `pushed` queries, head by head; a prompt's oldest, which the ring would forget, stay behind.
void AppendQueryMoves(const cuda::Rows& q,
                      int64_t stored_width,
                      const QueryRing& ring,
                      std::vector<cuda::RowMove>& moves);

// Adds moves of the keys and of each plane of values from one block to another; `rows` says which
// rows, to which they go, and has no planes of its own.
void AppendBlockMoves(const CacheBlock& from,
                      const CacheBlock& to,
                      const cuda::RowMove& rows,
                      std::vector<cuda::RowMove>& moves);

// Where rows of a batch are stored: a group's keys, or the values of one of its kv heads.
struct StoredPlane {
  cuda::CachedRows from;  // columns of the batch's keys [T, n * R], or values [T, G * D]
  cuda::CachedRows to;    // the group's recent block
  int64_t head = 0;       // of the layer; of keys the group's first
  bool keys = false;
};

// Calls visit(StoredPlane) for the keys of each group of a layer, then for each plane of its
// values; `rows` are the layer's.
template <class Visit>
void ForStoredPlanes(const AttentionStep& step,
                     const CudaActivations& x,
                     const LayerCache& layer,
                     const LayerRows& rows,
                     const Visit& visit) {
  const cuda::Rows k = x.AttentionIn(step.layer, 1);
  const cuda::Rows v = x.AttentionIn(step.layer, 2);
  const int64_t width = v.width / step.num_kv_heads;
  int64_t head = 0;
  for (int64_t n = 0; n < std::ssize(layer.groups); ++n) {
    const CacheBlock& block = layer.groups[n].recent;
    visit(StoredPlane{FloatColumns(k, n * step.stored_width, step.key_ranks[n]), rows.Keys(block),
                      head, true});
    for (int64_t plane = 0; plane < block.shape().heads; ++plane, ++head) {
      visit(StoredPlane{FloatColumns(v, head * width, width), rows.Values(block, plane), head,
                        false});
    }
  }
}

// Lets a move into codes with steps count numbers that have no code, where the device looks at its
// next wait (CudaDevice::faults).
void CountFaults(CudaDevice& device, cuda::RowMove& move);

// Execute a table of the host once, if there is anything in it; its faults are counted.
void LaunchMoves(std::vector<cuda::RowMove> moves, CudaDevice& device);
void LaunchProjections(std::vector<cuda::RowProjection> projections, CudaDevice& device);

}  // namespace kvc::runtime
