#pragma once
// Execution of a decision about a layer's rows.

#include <cstdint>

#include "runtime/cache/kv_cache.h"
#include "runtime/cache/row_moves.h"

namespace kvc::runtime {

class Backend;  // runtime/backend.h

// Executes a decision on a layer of a sequence of `length` tokens. Where tokens leave by their
// positions (layers with a window), the positions of those in the tiers are written down.
void ApplyDecision(
    Backend& backend, const LayerMoves& moves, int64_t layer, int64_t length, SequenceCache& cache);

}  // namespace kvc::runtime
