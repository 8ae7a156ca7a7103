#pragma once
// The threads of the kernel benchmarks, and what the memory gives: the figure that kernels bound by
// reading are divided by.

#include <ostream>

#include "core/thread_pool.h"

namespace kvc::bench {

// KVC_BENCH_THREADS threads; without it, one per core.
ThreadPool& Pool();

// Bytes per second at which the pool's threads read 128 MiB of memory from first to last, the best
// of many passes over two seconds; measured once.
double MemorySpeed();

// One line: threads, SIMD target, read bandwidth.
void PrintMachine(std::ostream& out);

}  // namespace kvc::bench
