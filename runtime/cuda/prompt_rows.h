#pragma once
// A chunk of a prompt on a CUDA device: how its rows enter a layer's working blocks, and attention
// over them.

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cuda/cuda_activations.h"
#include "runtime/cuda/cuda_device.h"

namespace kvc::runtime {

// Backend::Store of rows of a prompt, whose layer is not in coordinates yet.
void StorePromptRows(int64_t layer,
                     RowRange rows,
                     int64_t first_position,
                     const CudaActivations& x,
                     SequenceCache& cache,
                     CudaDevice& device);

// Backend::AttendPrompt.
void AttendWorkingBlocks(int64_t layer,
                         const SequenceCache& cache,
                         CudaActivations& x,
                         CudaDevice& device);

}  // namespace kvc::runtime
