#pragma once
// What the memory gives: the figure that everything bound by reading is divided by.

#include "core/base/thread_pool.h"

namespace kvc::bench {

// Bytes per second at which the pool's threads read 128 MiB of memory, four times a usual
// last-level cache, from first to last: the best of many passes over two seconds.
[[nodiscard]] double MeasureReadBandwidth(ThreadPool& pool);

}  // namespace kvc::bench
