#include "model/ordered_work.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace kvc::model {
namespace {

class OrderedWork {
 public:
  OrderedWork(int64_t count, int workers, const std::function<void(int64_t)>& produce)
      : count_(count), ahead_(workers + 1), produce_(produce), done_(count, false) {
    for (int i = 0; i < workers; ++i) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  ~OrderedWork() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    space_.notify_all();
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  OrderedWork(const OrderedWork&) = delete;
  OrderedWork& operator=(const OrderedWork&) = delete;

  // Returns when item i is made; rethrows what a worker threw.
  void WaitFor(int64_t i) {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return done_[i] || error_ != nullptr; });
    if (error_ != nullptr) {
      std::rethrow_exception(error_);
    }
  }
  void SetConsumed(int64_t count) {
    {
      const std::lock_guard lock(mutex_);
      consumed_ = count;
    }
    space_.notify_all();
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      space_.wait(lock, [&] { return stopped_ || next_ == count_ || next_ < consumed_ + ahead_; });
      if (stopped_ || next_ == count_) {
        return;
      }
      const int64_t item = next_++;
      lock.unlock();
      std::exception_ptr error;
      try {
        produce_(item);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      done_[item] = true;
      if (error != nullptr) {
        error_ = error;
        stopped_ = true;
        space_.notify_all();
      }
      ready_.notify_one();
    }
  }

  const int64_t count_;
  const int64_t ahead_;
  const std::function<void(int64_t)>& produce_;  // outlives this object
  std::mutex mutex_;
  std::condition_variable space_;  // an item was consumed, or all shall stop
  std::condition_variable ready_;  // an item was made, or a worker failed
  std::vector<bool> done_;
  int64_t next_ = 0;
  int64_t consumed_ = 0;
  bool stopped_ = false;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

}  // namespace

void RunOrdered(int64_t count,
                int workers,
                const std::function<void(int64_t)>& produce,
                const std::function<void(int64_t)>& consume) {
  if (workers <= 1) {
    for (int64_t i = 0; i < count; ++i) {
      produce(i);
      consume(i);
    }
    return;
  }
  OrderedWork work(count, workers, produce);
  for (int64_t i = 0; i < count; ++i) {
    work.WaitFor(i);
    consume(i);
    work.SetConsumed(i + 1);
  }
}

}  // namespace kvc::model
