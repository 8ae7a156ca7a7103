#pragma once
// A fixed set of threads that run the same function over parts of a range.
//
// Parts are fixed by the range and the grain, never by the number of threads, so that results do
// not depend on it.

#include <cstdint>
#include <functional>
#include <memory>

namespace kvc {

class ThreadPool {
 public:
  // `num_threads` >= 1, the calling thread included; 0: one per core.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int num_threads() const;
  // Calls body(begin, end) for consecutive parts of [0, count), each `grain` long but the last.
  // Waits for all. The first exception is rethrown. Must not be called from inside a body.
  void ParallelFor(int64_t count,
                   int64_t grain,
                   const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
