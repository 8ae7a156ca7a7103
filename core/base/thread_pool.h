#pragma once
// A fixed set of threads that run one function over the parts of a range.
//
// The range and the grain fix the parts, never the number of threads, so that results do not depend
// on it. A thread polls for about 30 microseconds before it sleeps, because the loops of a decode
// step follow one another at such intervals.

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
  // Calls body(begin, end) for consecutive parts of [0, count), each `grain` long but the last one,
  // and waits for all of them. Of several exceptions, that of the lowest part is rethrown.
  //
  // Loops do not nest: a call from inside a body throws kInternal, even on another pool, because
  // the mark "inside a body" belongs to the thread. Several threads may share a pool; their loops
  // then run one after the other.
  void ParallelFor(int64_t count,
                   int64_t grain,
                   const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
