// How threads of a block meet, wait and fail, on lambdas as kernels.

#include "kernels/emulator/emulator.h"

#include <atomic>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "kernels/emulator/collectives.h"
#include "kernels/emulator/thread.h"

namespace kvc::emulator {
namespace {

// What RunGrid throws; "" for nothing.
std::string FailureOf(const Grid& grid, const std::function<void()>& kernel) {
  try {
    RunGrid(grid, kernel);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDevice) << error.what();
    return error.what();
  }
  return "";
}

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class EmulatorTest : public testing::Test {
 protected:
  ~EmulatorTest() override { SetOptions({}); }
};

TEST_F(EmulatorTest, EveryThreadOfEveryBlockRunsOnce) {
  for (const int num_threads : {1, 2}) {
    SetOptions({3, num_threads});
    std::vector<std::atomic<int>> count(5 * 3 * 64);
    Grid grid;
    grid.blocks_x = 5;
    grid.blocks_y = 3;
    grid.threads = 64;
    RunGrid(grid, [&] {
      const Block& block = *self->block;
      ++count[(block.index.y * block.grid_dim.x + block.index.x) * 64 + self->index.x];
    });
    for (const auto& times : count) {
      ASSERT_EQ(times, 1);
    }
  }
}

TEST_F(EmulatorTest, SeedsShuffleThreadsAndTheSameSeedRepeats) {
  const auto order_of = [](uint64_t seed) {
    SetOptions({seed});
    std::vector<int> order;
    Grid grid;
    grid.threads = 32;
    RunGrid(grid, [&] { order.push_back(self->id); });
    return order;
  };
  std::vector<int> in_order(32);
  for (int i = 0; i < 32; ++i) {
    in_order[i] = i;
  }
  EXPECT_EQ(order_of(0), in_order);
  EXPECT_NE(order_of(1), in_order);
  EXPECT_NE(order_of(1), order_of(2));
  EXPECT_EQ(order_of(7), order_of(7));
}

TEST_F(EmulatorTest, NobodyPassesABarrierBeforeAllHaveCome) {
  for (const uint64_t seed : {0, 5}) {
    SetOptions({seed});
    int arrived = 0;
    Grid grid;
    grid.threads = 96;
    RunGrid(grid, [&] {
      for (int round = 1; round <= 4; ++round) {
        ++arrived;
        MeetBlock(nullptr);
        ASSERT_EQ(arrived, 96 * round);
        MeetBlock(nullptr);
      }
    });
  }
}

TEST_F(EmulatorTest, BarriersDoNotWaitForThreadsThatHaveEnded) {
  int passed = 0;
  Grid grid;
  grid.threads = 64;
  EXPECT_EQ(FailureOf(grid,
                      [&] {
                        if (self->id >= 32) {
                          MeetBlock(nullptr);
                          ++passed;
                        }
                      }),
            "");
  EXPECT_EQ(passed, 32);
}

TEST_F(EmulatorTest, ADeadlockIsReported) {
  Grid grid;
  grid.name = "StuckKernel";
  grid.threads = 64;
  const std::string failure = FailureOf(grid, [] {
    if (self->id < 40) {
      MeetWarp(Meeting::kSyncWarp, nullptr, FinishSync, nullptr);
    }
  });
  EXPECT_TRUE(Has(failure, "StuckKernel: block 0: ")) << failure;
  EXPECT_TRUE(Has(failure, "deadlock: 8 wait, 56 ended; thread 32 waits at a warp barrier"))
      << failure;
}

TEST_F(EmulatorTest, LanesAtTwoInstructionsAreReported) {
  const std::string failure = FailureOf(Grid(), [] {
    uint32_t operand = 0;
    if (self->lane == 9) {
      MeetWarp(Meeting::kVote, &operand, FinishBallot, nullptr);
    } else {
      MeetWarp(Meeting::kSyncWarp, nullptr, FinishSync, nullptr);
    }
  });
  EXPECT_TRUE(Has(failure, "thread 9: expected all lanes of a warp at one instruction")) << failure;
}

TEST_F(EmulatorTest, SharedMemoryBeyondTheLaunchIsReported) {
  Grid grid;
  grid.shared_bytes = 64;
  EXPECT_EQ(FailureOf(grid, [] { SharedMemoryOf(64, nullptr); }), "");
  EXPECT_TRUE(Has(FailureOf(grid, [] { SharedMemoryOf(65, nullptr); }), "a launch with less"));
}

TEST_F(EmulatorTest, AFailedLaunchLeavesTheEmulatorUsable) {
  Grid grid;
  grid.threads = 128;
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(FailureOf(grid, [] { Fail("expected nothing, got a test"); }), "");
    int count = 0;
    EXPECT_EQ(FailureOf(grid, [&] { ++count; }), "");
    EXPECT_EQ(count, 128);
  }
}

// In flight: neither what was there nor what comes.
TEST_F(EmulatorTest, ACopyLandsWhenItsGroupIsWaitedFor) {
  alignas(16) static uint32_t from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  Grid grid;
  grid.shared_bytes = 32;
  EXPECT_EQ(FailureOf(grid,
                      [] {
                        if (self->id != 0) {
                          return;
                        }
                        auto* to = static_cast<uint32_t*>(SharedMemoryOf(32, nullptr));
                        to[0] = to[4] = 77;
                        CopyAsync(to, from, true, nullptr);
                        CommitCopyGroup();
                        CopyAsync(to + 4, from + 4, false, nullptr);
                        CommitCopyGroup();
                        EXPECT_EQ(to[0], 0xffffffffU);
                        WaitForCopies(1);
                        EXPECT_EQ(to[0], 1U);
                        EXPECT_EQ(to[3], 4U);
                        EXPECT_EQ(to[4], 0xffffffffU);
                        WaitForCopies(0);
                        EXPECT_EQ(to[4], 0U) << "a copy that is not valid writes zeros";
                        CopyAsync(to, from + 4, true, nullptr);
                        WaitForCopies(0);
                        EXPECT_EQ(to[0], 0xffffffffU) << "not committed: not waited for";
                      }),
            "");
}

TEST_F(EmulatorTest, SizesThatNoDeviceTakesAreRefused) {
  Grid grid;
  grid.threads = 40;
  EXPECT_THROW(RunGrid(grid, [] {}), Error);
  grid.threads = 2048;
  EXPECT_THROW(RunGrid(grid, [] {}), Error);
  grid.threads = 32;
  grid.shared_bytes = kMostSharedBytes + 1;
  EXPECT_THROW(RunGrid(grid, [] {}), Error);
}

TEST_F(EmulatorTest, RunsAreCounted) {
  ResetRunCounts();
  Grid grid;
  grid.blocks_x = 3;
  RunGrid(grid, [] { MeetBlock(nullptr); });
  EXPECT_EQ(GetRunCounts().launches, 1U);
  EXPECT_EQ(GetRunCounts().blocks, 3U);
  // Once to start; all but the last to come once more.
  EXPECT_EQ(GetRunCounts().switches, 3U * (32 + 31));
}

}  // namespace
}  // namespace kvc::emulator
