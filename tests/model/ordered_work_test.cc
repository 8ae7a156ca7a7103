#include "model/ordered_work.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace kvc::model {
namespace {

class OrderedWorkTest : public ::testing::TestWithParam<int> {};

TEST_P(OrderedWorkTest, ConsumesInOrderWhatWasProduced) {
  for (const int64_t count : {0, 1, 2, 50}) {
    std::vector<int64_t> made(count, -1);
    std::vector<int64_t> used;
    RunOrdered(
        count, GetParam(), [&](int64_t i) { made[i] = i * i; },
        [&](int64_t i) { used.push_back(made[i]); });
    ASSERT_EQ(static_cast<int64_t>(used.size()), count);
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(used[i], i * i);
    }
  }
}

TEST_P(OrderedWorkTest, BeginsAtMostOneItemMoreThanThereAreWorkers) {
  std::atomic<int64_t> begun = 0;
  std::atomic<int64_t> most = 0;
  int64_t consumed = 0;
  RunOrdered(
      100, GetParam(), [&](int64_t) { ++begun; },
      [&](int64_t) {
        most = std::max<int64_t>(most, begun - consumed);
        ++consumed;
      });
  EXPECT_EQ(consumed, 100);
  EXPECT_LE(most, GetParam() + 1);
}

TEST_P(OrderedWorkTest, RethrowsWhatTheProducerThrew) {
  int64_t consumed = 0;
  EXPECT_THROW(RunOrdered(
                   100, GetParam(),
                   [](int64_t i) {
                     if (i == 7) {
                       throw std::runtime_error("seven");
                     }
                   },
                   [&](int64_t) { ++consumed; }),
               std::runtime_error);
  EXPECT_LE(consumed, 7);
}

TEST_P(OrderedWorkTest, StopsWhenTheConsumerThrows) {
  std::atomic<int64_t> begun = 0;
  EXPECT_THROW(RunOrdered(
                   1000, GetParam(), [&](int64_t) { ++begun; },
                   [](int64_t i) {
                     if (i == 3) {
                       throw std::runtime_error("three");
                     }
                   }),
               std::runtime_error);
  EXPECT_LE(begun, 4 + GetParam() + 1);
}

INSTANTIATE_TEST_SUITE_P(Workers, OrderedWorkTest, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace kvc::model
