#pragma once
// Executes a decision (runtime/cache/row_moves.h) on a layer in the host's memory.

#include <cstdint>

#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"

namespace kvc::runtime {

// Moves the rows of all groups. A prompt's working blocks become tiers and recent blocks, in the
// layer's coordinates where it has some; tiers that take rows from each other are made anew beside
// the old ones, a single one in place. Single-threaded. Throws kInternal for moves that do not fit
// the layer.
void ApplyMoves(const LayerMoves& moves, int64_t layer, SequenceCache& cache);

}  // namespace kvc::runtime
