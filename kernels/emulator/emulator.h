#pragma once
// A GPU on the CPU: runs kernels that a host compiler has compiled, with every thread of a block as
// a fiber (Boost.Context).
//
// All fibers of a block run on one OS thread, one at a time, until they wait for each other; blocks
// are spread over the threads of a pool. Between two meetings the order of the threads, and the
// order of blocks, follow a seed. What a GPU leaves undefined is made visible: shared memory begins
// as NaN, an asynchronous copy lands only when it is waited for (NaN until then), and threads that
// wait for each other forever are reported instead of hanging.
//
// One emulated device per process. RunGrid is called from one thread at a time.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace kvc::emulator {

constexpr int kWarpLanes = 32;
constexpr int kMostThreads = 1024;              // of a block
constexpr size_t kMostSharedBytes = 227 << 10;  // of a block, as on sm_90

struct Options {
  uint64_t seed = 0;    // 0: threads and blocks in order
  int num_threads = 1;  // OS threads for blocks; the checker always uses one
  bool check = true;    // kvc_cuda_checked only: faults are thrown (checker.h)
  bool count = false;   // kvc_cuda_checked only: traffic is counted (traffic.h)
};
// Holds from the next launch on.
void SetOptions(const Options& options);
[[nodiscard]] const Options& GetOptions();

// One launch: its name for messages, and its sizes.
struct Grid {
  const char* name = "kernel";
  unsigned blocks_x = 1;
  unsigned blocks_y = 1;
  unsigned threads = kWarpLanes;  // of a block: whole warps
  size_t shared_bytes = 0;        // dynamic shared memory of a block
  bool early = false;  // may start before the launch before it has ended (WaitForPrevious)
  const void* stream = nullptr;  // launches of one stream follow each other
};

// Calls `kernel` once for each thread of each block and returns when all have ended. Throws kDevice
// where threads wait for each other forever, use more shared memory than the launch has, or do what
// the checker forbids; the message names kernel, block, thread and, from the checker, source lines.
void RunGrid(const Grid& grid, const std::function<void()>& kernel);

// Work done since the last reset.
struct RunCounts {
  uint64_t launches = 0;
  uint64_t blocks = 0;
  uint64_t switches = 0;  // resumed fibers
};
[[nodiscard]] RunCounts GetRunCounts();
void ResetRunCounts();

}  // namespace kvc::emulator
