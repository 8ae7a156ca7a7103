#include "bench/pool.h"

#include <atomic>
#include <cstdlib>
#include <vector>

#include "bench/timing.h"

#include "kernels/cpu/simd_targets.h"

namespace kvc::bench {
namespace {

// Independent sums, so that the additions do not wait for one another.
uint64_t Sum(const uint64_t* data, int64_t count) {
  constexpr int64_t kStreams = 32;
  uint64_t sums[kStreams] = {};
  for (int64_t i = 0; i + kStreams <= count; i += kStreams) {
    for (int64_t s = 0; s < kStreams; ++s) {
      sums[s] ^= data[i + s];
    }
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) {
    total ^= sum;
  }
  return total;
}

double MeasureMemorySpeed() {
  constexpr int64_t kCount = int64_t{16} << 20;  // 128 MiB: four times the last-level cache
  constexpr int64_t kGrain = 1 << 15;
  const std::vector<uint64_t> data(static_cast<size_t>(kCount), 1);
  std::atomic<uint64_t> sink = 0;
  BestTime best;
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < std::chrono::seconds(2)) {
    best.Run([&] {
      Pool().ParallelFor(kCount, kGrain, [&](int64_t begin, int64_t end) {
        sink += Sum(data.data() + begin, end - begin);
      });
    });
  }
  return static_cast<double>(kCount) * sizeof(uint64_t) / best.seconds();
}

}  // namespace

ThreadPool& Pool() {
  static ThreadPool pool([] {
    const char* threads = std::getenv("KVC_BENCH_THREADS");
    return threads == nullptr ? 0 : std::atoi(threads);
  }());
  return pool;
}

double MemorySpeed() {
  static const double speed = MeasureMemorySpeed();
  return speed;
}

void PrintMachine(std::ostream& out) {
  out << "threads " << Pool().num_threads() << ", "
      << kernels::SimdTargetName(kernels::SupportedSimdTargets().front()) << ", memory read "
      << MemorySpeed() * 1e-9 << " GB/s\n";
}

}  // namespace kvc::bench
