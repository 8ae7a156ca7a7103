#pragma once
// Read bandwidth of the memory, to which the speed of everything bound by reading is compared.

#include "core/base/thread_pool.h"

namespace kvc::bench {

// Returns the bytes per second at which the pool's threads read 128 MiB of memory, four times a
// usual last-level cache, from first to last: the best of many passes over two seconds.
[[nodiscard]] double MeasureReadBandwidth(ThreadPool& pool);

}  // namespace kvc::bench
