#pragma once
// Scores of cached tokens for a whole layer that lies on a CUDA device, finished by the scorers on
// the host: only sums (layer_sums.h) are brought there. The twin of runtime/cpu/scoring.h.

#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/backend.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"

namespace kvc::runtime {

// Backend::Score for what CanScore (layer_sums.h) says yes to. Waits for the stream once.
[[nodiscard]] std::vector<GroupScores> ScoreOnDevice(const ScoreRequest& request,
                                                     const CudaModel& model,
                                                     SequenceCache& cache,
                                                     DeviceBases& bases,
                                                     ThreadPool& pool,
                                                     CudaDevice& device);

}  // namespace kvc::runtime
