#include "core/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc {
namespace {

using Part = std::pair<int64_t, int64_t>;

std::set<Part> PartsOf(ThreadPool& pool, int64_t count, int64_t grain) {
  std::mutex mutex;
  std::set<Part> parts;
  pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard<std::mutex> guard(mutex);
    EXPECT_TRUE(parts.emplace(begin, end).second) << "part " << begin << " ran twice";
  });
  return parts;
}

TEST(ThreadPool, PartsDoNotDependOnTheThreads) {
  for (const int64_t count : {0, 1, 2, 7, 8, 100}) {
    for (const int64_t grain : {1, 3, 8, 1000}) {
      std::set<Part> expected;
      for (int64_t begin = 0; begin < count; begin += grain) {
        expected.emplace(begin, std::min(begin + grain, count));
      }
      for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        EXPECT_EQ(PartsOf(pool, count, grain), expected) << count << " " << grain << " " << threads;
      }
    }
  }
}

TEST(ThreadPool, ManyShortLoops) {
  ThreadPool pool(4);
  std::vector<int64_t> values(37, 0);
  for (int loop = 0; loop < 20000; ++loop) {
    pool.ParallelFor(37, 5, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        values[static_cast<size_t>(i)] += i;  // a part that runs twice or late shows up here
      }
    });
    if (loop % 1000 == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // let the workers fall asleep
    }
  }
  for (int64_t i = 0; i < 37; ++i) {
    EXPECT_EQ(values[static_cast<size_t>(i)], 20000 * i);
  }
}

TEST(ThreadPool, WorkIsShared) {
  ThreadPool pool(2);
  EXPECT_EQ(pool.num_threads(), 2);
  // Each part waits for the other: it ends only when two threads run them at once.
  std::atomic<int> arrived{0};
  pool.ParallelFor(2, 1, [&](int64_t, int64_t) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) {
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPool, LowestPartsExceptionWins) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int i = 0; i < 50; ++i) {
      const auto run = [&] {
        pool.ParallelFor(16, 1, [](int64_t begin, int64_t) {
          if (begin == 3) {
            std::this_thread::sleep_for(std::chrono::microseconds(200));
          }
          KVC_CHECK(begin != 3 && begin != 9, kNumeric, "part {}", begin);
        });
      };
      EXPECT_KVC_ERROR(run(), kNumeric, "part 3");
    }
    EXPECT_EQ(PartsOf(pool, 4, 1).size(), 4U);  // usable afterwards
  }
}

TEST(ThreadPool, RefusesMisuse) {
  ThreadPool pool(2);
  const auto nested = [&] {
    pool.ParallelFor(1, 1,
                     [&](int64_t, int64_t) { pool.ParallelFor(1, 1, [](int64_t, int64_t) {}); });
  };
  EXPECT_KVC_ERROR(nested(), kInternal, "nested");
  EXPECT_KVC_ERROR(pool.ParallelFor(1, 0, [](int64_t, int64_t) {}), kInternal, "grain");
  EXPECT_KVC_ERROR(ThreadPool(-1), kUsage, "-1");
  EXPECT_GE(ThreadPool(0).num_threads(), 1);
}

TEST(ThreadPool, LoopsFromTwoThreadsTakeTurns) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  const auto many = [&] {
    for (int i = 0; i < 500; ++i) {
      pool.ParallelFor(10, 1, [&](int64_t begin, int64_t) { sum.fetch_add(begin); });
    }
  };
  std::thread other(many);
  many();
  other.join();
  EXPECT_EQ(sum.load(), 2 * 500 * 45);
}

}  // namespace
}  // namespace kvc
