#include "bench/support/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <vector>

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

}  // namespace

double MeasureReadBandwidth(ThreadPool& pool) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kCount = int64_t{16} << 20;
  constexpr int64_t kGrain = 1 << 15;
  const std::vector<uint64_t> data(static_cast<size_t>(kCount), 1);
  std::atomic<uint64_t> sink = 0;
  double best = std::numeric_limits<double>::infinity();
  const auto start = Clock::now();
  while (Clock::now() - start < std::chrono::seconds(2)) {
    const auto pass = Clock::now();
    pool.ParallelFor(kCount, kGrain, [&](int64_t begin, int64_t end) {
      sink += Sum(data.data() + begin, end - begin);
    });
    best = std::min(best, std::chrono::duration<double>(Clock::now() - pass).count());
  }
  return static_cast<double>(kCount) * sizeof(uint64_t) / best;
}

}  // namespace kvc::bench
