#include "core/base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace kvc {
namespace {

// A decode step has hundreds of short parallel loops a few microseconds apart. A thread that finds
// nothing to do polls this long before it sleeps: a wake-up through the kernel costs about as much.
constexpr auto kSpinTime = std::chrono::microseconds(30);

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Polls until done() holds or the spin time is over. Returns done().
template <class Condition>
bool SpinUntil(const Condition& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) {
        return true;
      }
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

// True while this thread runs a body of any pool: loops do not nest.
thread_local bool inside_body = false;

}  // namespace

// Loops are handed out by tickets: `ticket` holds the loop's number (upper half) and how many of
// its parts are unclaimed (lower half). A thread claims a part by lowering it. While a claimed part
// is not finished, ParallelFor does not return, so the fields of the loop may be read after the
// claim, and only then; a thread that wakes up late finds nothing to claim and touches nothing.
struct ThreadPool::Impl {
  std::atomic<uint64_t> ticket{0};
  std::atomic<uint32_t> unfinished{0};  // parts of the current loop that have not returned
  std::atomic<int> wake{0};  // changes with every loop and at the end; workers sleep on it
  std::atomic<bool> stop{false};

  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t count = 0;
  int64_t grain = 1;
  int64_t num_parts = 0;

  std::mutex error_mutex;
  std::exception_ptr error;
  int64_t error_part = 0;
  std::mutex loop_mutex;  // one loop at a time, should two threads share the pool
  std::vector<std::thread> workers;

  // Claims and runs one part. Returns false when none is left.
  bool RunOne();
  void RunPart(int64_t part);
  // A worker's life: runs parts of loops until `stop`.
  void RunWorker();
};

bool ThreadPool::Impl::RunOne() {
  uint64_t seen = ticket.load(std::memory_order_acquire);
  do {
    if ((seen & 0xffffffffU) == 0) {
      return false;
    }
  } while (!ticket.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire));
  RunPart(num_parts - static_cast<int64_t>(seen & 0xffffffffU));
  if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    unfinished.notify_all();
  }
  return true;
}

void ThreadPool::Impl::RunPart(int64_t part) {
  const int64_t begin = part * grain;
  inside_body = true;
  try {
    (*body)(begin, std::min(begin + grain, count));
  } catch (...) {
    // The lowest part's exception wins, so that the message does not depend on timing.
    const std::lock_guard<std::mutex> guard(error_mutex);
    if (error == nullptr || part < error_part) {
      error = std::current_exception();
      error_part = part;
    }
  }
  inside_body = false;
}

void ThreadPool::Impl::RunWorker() {
  while (true) {
    const int seen = wake.load(std::memory_order_acquire);
    while (RunOne()) {
    }
    if (stop.load(std::memory_order_acquire)) {
      return;
    }
    const auto changed = [&] { return wake.load(std::memory_order_acquire) != seen; };
    if (!SpinUntil(changed)) {
      wake.wait(seen, std::memory_order_acquire);
    }
  }
}

ThreadPool::ThreadPool(int num_threads) : impl_(std::make_unique<Impl>()) {
  KVC_CHECK(num_threads >= 0, kUsage, "threads: expected 0 or more, got {}", num_threads);
  if (num_threads == 0) {
    num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  try {
    for (int i = 1; i < num_threads; ++i) {
      impl_->workers.emplace_back([impl = impl_.get()] { impl->RunWorker(); });
    }
  } catch (const std::system_error& error) {
    impl_->stop = true;
    impl_->wake.fetch_add(1);
    impl_->wake.notify_all();
    for (std::thread& worker : impl_->workers) {
      worker.join();
    }
    KVC_THROW(kUsage, "threads: expected to start {}, got \"{}\"; lower --threads", num_threads,
              error.what());
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->wake.fetch_add(1, std::memory_order_release);
  impl_->wake.notify_all();
  for (std::thread& worker : impl_->workers) {
    worker.join();
  }
}

int ThreadPool::num_threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::ParallelFor(int64_t count,
                             int64_t grain,
                             const std::function<void(int64_t begin, int64_t end)>& body) {
  KVC_CHECK(!inside_body, kInternal, "ParallelFor: expected a call from outside, got a nested one");
  KVC_CHECK(count >= 0 && grain >= 1, kInternal,
            "ParallelFor: expected count >= 0, grain >= 1, got {}, {}", count, grain);
  const int64_t num_parts = count / grain + (count % grain != 0 ? 1 : 0);
  KVC_CHECK(num_parts <= std::numeric_limits<uint32_t>::max(), kInternal,
            "ParallelFor: expected fewer than 2^32 parts, got {}", num_parts);
  if (num_parts == 0) {
    return;
  }
  Impl& impl = *impl_;
  const std::lock_guard<std::mutex> one_loop(impl.loop_mutex);
  impl.body = &body;
  impl.count = count;
  impl.grain = grain;
  impl.num_parts = num_parts;
  impl.unfinished.store(static_cast<uint32_t>(num_parts), std::memory_order_relaxed);
  const uint64_t loop_number = (impl.ticket.load(std::memory_order_relaxed) >> 32) + 1;
  impl.ticket.store(loop_number << 32 | static_cast<uint64_t>(num_parts),
                    std::memory_order_release);
  if (num_parts > 1 && !impl.workers.empty()) {
    impl.wake.fetch_add(1, std::memory_order_release);
    impl.wake.notify_all();
  }
  while (impl.RunOne()) {
  }
  const auto finished = [&] { return impl.unfinished.load(std::memory_order_acquire) == 0; };
  if (!SpinUntil(finished)) {
    while (const uint32_t left = impl.unfinished.load(std::memory_order_acquire)) {
      impl.unfinished.wait(left, std::memory_order_acquire);
    }
  }
  if (impl.error != nullptr) {
    std::rethrow_exception(std::exchange(impl.error, nullptr));
  }
}

}  // namespace kvc
