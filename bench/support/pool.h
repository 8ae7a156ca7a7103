#pragma once
// Threads of the kernel benchmarks, and the read bandwidth of the memory, to which the speed of
// kernels bound by reading is compared.

#include <ostream>

#include "core/base/thread_pool.h"

namespace kvc::bench {

// Returns a pool of KVC_BENCH_THREADS threads; without this variable, one per core.
ThreadPool& Pool();

// Returns the read bandwidth (bench/support/read_bandwidth.h) with the pool's threads, measured
// once.
double MemorySpeed();

// Prints one line: threads, SIMD target, read bandwidth.
void PrintMachine(std::ostream& out);

}  // namespace kvc::bench
