#pragma once
// A layer's rows as scores read them, on the device: one matrix of keys and one of values for each
// kv head, in the model's space, and what tiers would make of them. The twin of what
// runtime/cpu/scoring.cc gathers.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/base/row_format.h"
#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/project_rows.h"
#include "kernels/cuda/rebuild_keys.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/cuda/device_table.h"

namespace kvc::runtime {

// One kv head of a layer: plane `plane` of group `group`.
struct HeadPlace {
  int64_t group = 0;
  int64_t head = 0;  // of the layer
  int64_t plane = 0;
};

// Names rows first, then makes them all in a few launches. Rows that lie in one block as they are
// needed are not copied; the others are made in memory of the object's own.
class ScoreRows {
 public:
  ScoreRows(int64_t layer,
            const CudaModel& model,
            const SequenceCache& cache,
            DeviceBases& bases,
            CudaDevice& device);

  // Tiers first, then the recent block.
  [[nodiscard]] int64_t Rows(const HeadPlace& place) const;
  [[nodiscard]] cuda::CachedRows Keys(const HeadPlace& place);
  [[nodiscard]] cuda::CachedRows Values(const HeadPlace& place);
  // What tier t of the spec makes of keys and values as those above named them; no data where it
  // changes nothing.
  [[nodiscard]] cuda::CachedRows TierKeys(const HeadPlace& place,
                                          int64_t t,
                                          const cuda::CachedRows& keys);
  [[nodiscard]] cuda::CachedRows TierValues(const HeadPlace& place,
                                            int64_t t,
                                            const cuda::CachedRows& values);
  // Makes what was named, in the stream.
  void Launch();

 private:
  [[nodiscard]] std::vector<const CacheBlock*> BlocksOf(int64_t group) const;
  cuda::CachedRows MakeRows(cuda::RowCode code,
                            int64_t rows,
                            int64_t width,
                            const CodeSteps& steps = {});
  // Rows of blocks one behind the other: as they are, or out of their coordinates.
  cuda::CachedRows Gather(std::span<const cuda::CachedRows> rows,
                          std::span<const CacheBlock* const> blocks,
                          const cuda::RowBasis& basis);
  // Keys from the first `width` columns of latents, stored as `format` would where it is given.
  cuda::CachedRows Rebuild(const HeadPlace& place, int64_t width, const RowFormat* format);
  // What the first `width` coordinates of rows leave of them, in `format`, with `steps` of the
  // bases, where it is given.
  cuda::CachedRows Approximate(const HeadPlace& place,
                               const cuda::CachedRows& rows,
                               const cuda::RowBasis& basis,
                               int64_t width,
                               const RowFormat* format,
                               CodeSteps steps);
  // Those that a format needs: of keys or of values.
  [[nodiscard]] CodeSteps StepsOf(const RowFormat& format, int64_t head, bool keys) const;
  const int32_t* PositionsOf(const CacheBlock& block);

  int64_t layer_;
  const CudaModel& model_;
  const SequenceCache& cache_;
  const LayerCache& store_;
  DeviceBases& bases_;
  CudaDevice& device_;
  LayerRows rows_;
  std::vector<Buffer> memory_;
  std::map<const CacheBlock*, DeviceTable<int32_t>> positions_;
  std::vector<cuda::RowMove> moves_;
  std::vector<cuda::KeyRebuild> rebuilds_;
  std::vector<cuda::RowProjection> restored_, narrowed_, widened_;
};

}  // namespace kvc::runtime
