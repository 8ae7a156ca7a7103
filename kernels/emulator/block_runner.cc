#include "kernels/emulator/block_runner.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "kernels/emulator/checker.h"
#include "kernels/emulator/run_counts.h"
#include "kernels/emulator/stacks.h"
#include "kernels/emulator/suspend.h"
#include "kernels/emulator/thread.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace kvc::emulator {
namespace bc = boost::context;

thread_local constinit Thread* self = nullptr;

namespace {

constexpr size_t kSharedAlignment = 128;

// Fibers live on stacks of ours.
struct KeepStack {
  bc::stack_context allocate() { return {}; }
  void deallocate(bc::stack_context& /*stack*/) noexcept {}
};

// A fiber that was forgotten leaves AddressSanitizer's marks of its frames on its stack.
void ForgetFrames([[maybe_unused]] const Stacks::Range& range) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(static_cast<std::byte*>(range.top) - range.bytes, range.bytes);
#endif
}

// Where the running fiber goes back to when it waits.
thread_local bc::fiber* scheduler = nullptr;

std::string WaitingText(const Block& block) {
  std::string text;
  for (const Thread& thread : block.threads) {
    if (!thread.ended && thread.waits_at != nullptr) {
      text = fmt::format("; thread {} waits at {}{}", thread.id, thread.waits_at,
                         DescribeSite(thread.waits_site));
      break;
    }
  }
  return text;
}

}  // namespace

void Suspend() { *scheduler = std::move(*scheduler).resume(); }

struct BlockRunner::Impl {
  Stacks stacks;
  Block block;
  std::vector<bc::fiber> fibers;
  std::vector<Thread*> running;
  std::unique_ptr<std::byte[]> shared =
      std::make_unique<std::byte[]>(kMostSharedBytes + kSharedAlignment);
  bc::fiber back;
  uint64_t switches = 0;

  void Prepare(const Grid& grid, int number);
  void Start(Thread& thread, const std::function<void()>& kernel);
  void RunReady(Rng& rng);
};

void BlockRunner::Impl::Prepare(const Grid& grid, int number) {
  const auto num = static_cast<int>(grid.threads);
  stacks.Reserve(grid.threads);
  if (block.threads.size() != grid.threads) {
    block.threads = std::vector<Thread>(grid.threads);
    fibers.clear();
    fibers.resize(grid.threads);
  }
  block.warps.assign(num / kWarpLanes, {});
  block.number = number;
  block.index = {number % grid.blocks_x, number / grid.blocks_x, 0};
  block.dim = {grid.threads, 1, 1};
  block.grid_dim = {grid.blocks_x, grid.blocks_y, 1};
  block.num_ended = 0;
  block.failure.clear();
  for (auto& waiting : block.at_barrier) {
    waiting.clear();
  }
  const auto address = reinterpret_cast<uintptr_t>(shared.get());
  block.shared = shared.get() + (kSharedAlignment - address % kSharedAlignment);
  block.shared_bytes = grid.shared_bytes;
  std::memset(block.shared, 0xff, block.shared_bytes);
  block.ready.clear();
  for (int i = 0; i < num; ++i) {
    Thread& thread = block.threads[i];
    thread = Thread();
    thread.index = {static_cast<unsigned>(i), 0, 0};
    thread.id = i;
    thread.lane = i % kWarpLanes;
    thread.warp = &block.warps[i / kWarpLanes];
    thread.block = &block;
    block.ready.push_back(&thread);
  }
}

void BlockRunner::Impl::Start(Thread& thread, const std::function<void()>& kernel) {
  const Stacks::Range range = stacks.At(thread.id);
  ForgetFrames(range);
  bc::stack_context stack;
  stack.sp = range.top;
  stack.size = range.bytes;
  fibers[thread.id] = bc::fiber(std::allocator_arg, bc::preallocated(stack.sp, stack.size, stack),
                                KeepStack(), [this, &thread, &kernel](bc::fiber&& from) {
                                  back = std::move(from);
                                  kernel();
                                  thread.ended = true;
                                  EndThread(thread);
                                  return std::move(back);
                                });
}

void BlockRunner::Impl::RunReady(Rng& rng) {
  running.swap(block.ready);
  block.ready.clear();
  if (GetOptions().seed != 0) {
    Shuffle(rng, running);
  }
  for (Thread* thread : running) {
    self = thread;
    fibers[thread->id] = std::move(fibers[thread->id]).resume();
    ++switches;
    if (!block.failure.empty()) {
      break;
    }
  }
  self = nullptr;
}

BlockRunner::BlockRunner() : impl_(std::make_unique<Impl>()) {}
BlockRunner::~BlockRunner() = default;

void BlockRunner::Run(const Grid& grid, int number, const std::function<void()>& kernel) {
  Impl& impl = *impl_;
  Block& block = impl.block;
  impl.Prepare(grid, number);
  for (Thread& thread : block.threads) {
    impl.Start(thread, kernel);
  }
  scheduler = &impl.back;
  impl.switches = 0;
  Rng rng(GetOptions().seed + 0x10001ULL * static_cast<uint64_t>(number));
  BeginBlock(block);
  while (!block.ready.empty() && block.failure.empty()) {
    impl.RunReady(rng);
  }
  const auto num = static_cast<int>(block.threads.size());
  if (block.failure.empty() && block.num_ended != num) {
    block.failure = fmt::format("expected all threads to meet, got a deadlock: {} wait, {} ended{}",
                                num - block.num_ended, block.num_ended, WaitingText(block));
  }
  EndBlock(block);
  AddSwitches(impl.switches);
  // A failure leaves fibers in the middle. Their frames own nothing, and cannot be unwound:
  // compilers take it that instrumented loads do not throw. So they are forgotten; the stacks are
  // ours.
  for (bc::fiber& fiber : impl.fibers) {
    if (fiber) {
      new (&fiber) bc::fiber();
    }
  }
  KVC_CHECK(block.failure.empty(), kDevice, "{}: block {}: {}", grid.name, number, block.failure);
}

}  // namespace kvc::emulator
