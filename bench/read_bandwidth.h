#pragma once
// What the memory gives: the figure that kernels bound by reading are divided by.

#include "core/thread_pool.h"

namespace kvc::bench {

// Bytes per second at which the pool's threads read `mebibytes` of memory from first to last, the
// best of 30 passes. Choose more than twice the last-level cache.
double ReadBandwidth(ThreadPool& pool, int64_t mebibytes = 128);

}  // namespace kvc::bench
