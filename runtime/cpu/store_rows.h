#pragma once
// How new tokens enter a layer's cache.

#include <cstdint>

#include "core/base/view.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// Columns of one query head in q [T, H * W].
[[nodiscard]] int64_t QueryStride(const AttentionStep& step, ConstMatrixF q);

// Appends T tokens, the first of position `first`, to the recent blocks of a layer, in its
// coordinates where its rows are, and with a budget their queries to its ring: q [T, H * W],
// k [T, n * R], v [T, G * D]. Throws kInternal when there is no room. One row allocates nothing.
void StoreRows(const AttentionStep& step,
               ConstMatrixF q,
               ConstMatrixF k,
               ConstMatrixF v,
               int64_t first,
               SequenceCache& cache);

}  // namespace kvc::runtime
