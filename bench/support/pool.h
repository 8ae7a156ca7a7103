#pragma once
// The threads of the kernel benchmarks, and what the memory gives: the figure that kernels bound by
// reading are divided by.

#include <ostream>

#include "core/base/thread_pool.h"

namespace kvc::bench {

// KVC_BENCH_THREADS threads; without it, one per core.
ThreadPool& Pool();

// bench/support/read_bandwidth.h with the pool's threads, measured once.
double MemorySpeed();

// One line: threads, SIMD target, read bandwidth.
void PrintMachine(std::ostream& out);

}  // namespace kvc::bench
