#include <atomic>
#include <memory>
#include <numeric>
#include <vector>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/thread_pool.h"
#include "kernels/emulator/block_runner.h"
#include "kernels/emulator/checker.h"
#include "kernels/emulator/checker_state.h"
#include "kernels/emulator/emulator.h"
#include "kernels/emulator/run_counts.h"

namespace kvc::emulator {
namespace {

Options options;
std::unique_ptr<ThreadPool> pool;

std::atomic<uint64_t> launches{0};
std::atomic<uint64_t> blocks{0};
std::atomic<uint64_t> switches{0};

void CheckSizes(const Grid& grid) {
  KVC_CHECK(grid.threads > 0 && grid.threads <= kMostThreads && grid.threads % kWarpLanes == 0,
            kInternal, "{}: expected whole warps, {} threads at most, got {}", grid.name,
            kMostThreads, grid.threads);
  KVC_CHECK(grid.shared_bytes <= kMostSharedBytes, kInternal,
            "{}: expected at most {} bytes of shared memory, got {}", grid.name, kMostSharedBytes,
            grid.shared_bytes);
  KVC_CHECK(grid.blocks_x > 0 && grid.blocks_y > 0 && grid.blocks_y <= 65535, kInternal,
            "{}: expected a grid with blocks, got {} x {}", grid.name, grid.blocks_x,
            grid.blocks_y);
}

void RunOne(const Grid& grid, int number, const std::function<void()>& kernel) {
  thread_local BlockRunner runner;
  runner.Run(grid, number, kernel);
}

}  // namespace

void SetOptions(const Options& wanted) {
  if (wanted.num_threads != options.num_threads) {
    pool.reset();
  }
  options = wanted;
}
const Options& GetOptions() { return options; }

void RunGrid(const Grid& grid, const std::function<void()>& kernel) {
  CheckSizes(grid);
  const auto num = static_cast<int>(grid.blocks_x * grid.blocks_y);
  ++launches;
  blocks += static_cast<uint64_t>(num);
  BeginGrid(grid);
  std::vector<int> order(num);
  std::iota(order.begin(), order.end(), 0);
  if (options.seed != 0) {
    Rng rng(options.seed);
    Shuffle(rng, order);
  }
  if (options.num_threads == 1 || num == 1 || Checking() || Counting()) {
    for (const int number : order) {
      RunOne(grid, number, kernel);
    }
    return;
  }
  if (pool == nullptr) {
    pool = std::make_unique<ThreadPool>(options.num_threads);
  }
  pool->ParallelFor(num, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      RunOne(grid, order[i], kernel);
    }
  });
}

void AddSwitches(uint64_t more) { switches += more; }
RunCounts GetRunCounts() { return {launches, blocks, switches}; }
void ResetRunCounts() { launches = blocks = switches = 0; }

}  // namespace kvc::emulator
