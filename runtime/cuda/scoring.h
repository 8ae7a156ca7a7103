#pragma once
// Scores of cached tokens for a whole layer that lies on a CUDA device: sums over queries come from
// its kernels (kernels/cuda/scores.h), and only they are brought to the host, where the scorers
// finish them. The twin of runtime/cpu/scoring.h.

#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/backend.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"

namespace kvc::runtime {

// Returns true if the kernels know a layer's widths, groups and rotations. What they cannot do is
// scored on the host (runtime/cpu/host_fallback.h).
[[nodiscard]] bool CanScore(const ScoreRequest& request,
                            const CudaModel& model,
                            const SequenceCache& cache);

// Backend::Score for what CanScore says yes to. Waits for the stream once. Heads of a long layer
// take turns where their rows must be copied, so that the copies stay small beside the layer.
[[nodiscard]] std::vector<GroupScores> ScoreOnDevice(const ScoreRequest& request,
                                                     const CudaModel& model,
                                                     const SequenceCache& cache,
                                                     DeviceBases& bases,
                                                     ThreadPool& pool,
                                                     CudaDevice& device);

}  // namespace kvc::runtime
