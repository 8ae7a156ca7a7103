#pragma once
// Executes a decision (runtime/cache/row_moves.h) on a layer in a CUDA device's memory.

#include <cstdint>

#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"

namespace kvc::runtime {

// Moves the rows of all groups, the twin of runtime/cpu/apply_moves.h: at most four launches a
// layer. Puts the work into the stream and waits for nothing. Throws kInternal for moves that do
// not fit the layer.
void ApplyMovesOnDevice(const LayerMoves& moves,
                        int64_t layer,
                        SequenceCache& cache,
                        DeviceBases& bases,
                        CudaDevice& device);

}  // namespace kvc::runtime
