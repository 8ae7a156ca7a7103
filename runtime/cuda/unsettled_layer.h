#pragma once
// What a CUDA device knows of a layer and the host has not been told: it is brought in one wait for
// all layers when a prompt has ended, so that no layer waits (Backend::Settle).

#include <memory>

#include "core/cache/scorer_spec.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/device.h"

namespace kvc::runtime {

// All memory is of the device. Parts without bytes are not asked for.
struct UnsettledLayer : UnsettledRows {
  Buffer energy;  // one double, LayerCache::residual_energy
  Buffer chosen;  // int32: rows of the prompt that each group's tier keeps, group after group
  Buffer best;    // their scores, likewise
  // One int32: how many of the scores' sums were no finite numbers; shared by all caches that used
  // the same scores.
  std::shared_ptr<const Buffer> faults;
  ScorerKind scorer = {};
};

// What is not settled of a layer; made where there is nothing yet. Throws kInternal for another
// backend's.
[[nodiscard]] UnsettledLayer& UnsettledOf(LayerCache& layer);

// Puts a copy of the layer's energy into the stream, if the host does not know it yet. Once the
// stream has been waited for, layer.residual_energy is right.
void DownloadEnergy(LayerCache& layer, CudaDevice& device);

// Backend::Settle: waits once if there is anything to be told.
void SettleOnDevice(SequenceCache& cache, CudaDevice& device);

}  // namespace kvc::runtime
