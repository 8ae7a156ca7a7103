#include "bench/read_bandwidth.h"

#include <atomic>
#include <vector>

#include "bench/timing.h"

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

double ReadBandwidth(ThreadPool& pool, int64_t mebibytes) {
  const std::vector<uint64_t> data(static_cast<size_t>(mebibytes) << 17, 1);
  const auto count = static_cast<int64_t>(data.size());
  constexpr int64_t kGrain = 1 << 17;
  std::atomic<uint64_t> sink = 0;
  BestTime best;
  for (int pass = 0; pass < 30; ++pass) {
    best.Run([&] {
      pool.ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
        sink += Sum(data.data() + begin, end - begin);
      });
    });
  }
  return static_cast<double>(count) * sizeof(uint64_t) / best.seconds();
}

}  // namespace kvc::bench
