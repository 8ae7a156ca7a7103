#pragma once
// Shared parts of the kernel benchmarks: the shapes of heads, the cache that goes to memory, and
// main.

#include <cstdint>
#include <iostream>

#include <benchmark/benchmark.h>

#include "bench/support/pool.h"

namespace kvc::bench {

// Size of a cache larger than the last-level cache.
inline constexpr int64_t kColdBytes = int64_t{160} << 20;

struct Heads {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t width = 0;
};
inline constexpr Heads kSmall{9, 3, 64};    // SmolLM2-135M
inline constexpr Heads kLarge{32, 8, 128};  // a 7B model

// Runs what the program registered, after a line about the machine.
inline int RunBenchmarks(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  PrintMachine(std::cout);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace kvc::bench
