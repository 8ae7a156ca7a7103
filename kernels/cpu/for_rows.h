#pragma once
// Loops over the rows of a matrix, for kernels that treat them one by one. Internal to kernels/cpu.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>

#include "core/base/error.h"
#include "core/base/thread_pool.h"

namespace kvc::kernels {

// Calls body(t) for every row, on several threads. A row costs `work`; a part has rows for a cost
// of about `grain`.
template <class Body>
void ForRows(int64_t rows, int64_t work, int64_t grain, ThreadPool& pool, const Body& body) {
  const int64_t part = std::max<int64_t>(1, grain / std::max<int64_t>(work, 1));
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      body(t);
    }
  };
  pool.ParallelFor(rows, part, std::ref(run));  // by reference: a decode step allocates nothing
}

// The position of row t, which must be below `limit`. Throws kBadShape naming the kernel.
inline int64_t PositionOf(const char* name,
                          std::span<const int32_t> positions,
                          int64_t t,
                          int64_t limit) {
  const int64_t position = positions[static_cast<size_t>(t)];
  KVC_CHECK(position >= 0 && position < limit, kBadShape,
            "{}: expected a position below {}, got {}; check the model's context length", name,
            limit, position);
  return position;
}

}  // namespace kvc::kernels
