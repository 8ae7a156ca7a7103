#pragma once
// Scores and coordinates of a layer that lies on another device, from a copy in the host's memory:
// what a backend uses until it has kernels of its own for them.

#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "runtime/backend.h"
#include "runtime/cpu/cpu_model.h"

namespace kvc::runtime {

// A copy of a layer in the host's memory: blocks, ring and coordinates.
[[nodiscard]] LayerCache DownloadLayer(const LayerCache& layer, CacheMeter& meter);

// Backend::Score. `model`: the same plan prepared for the processor; prompt_queries [T, H * W]: of
// the whole prompt, on the host; no rows: the ring's stand for them.
[[nodiscard]] std::vector<GroupScores> ScoreOnHost(const ScoreRequest& request,
                                                   const CpuModel& model,
                                                   ConstMatrixF prompt_queries,
                                                   const SequenceCache& cache,
                                                   ThreadPool& pool);

// Backend::FindCoordinates: found on the host, then brought to the device.
void FindCoordinatesOnHost(int64_t layer, SequenceCache& cache, ThreadPool& pool);

}  // namespace kvc::runtime
