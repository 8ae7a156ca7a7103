// Memory that may still be taken.

#include "core/base/memory_left.h"

#include <string_view>

#include <gtest/gtest.h>

namespace kvc {
namespace {

constexpr std::string_view kMeminfo =
    "MemTotal:       24655452 kB\nMemFree:        1000 kB\nMemAvailable:   2048 kB\n";

TEST(MemoryLeftTest, IsTheLesserOfMachineAndGroup) {
  EXPECT_EQ(MemoryLeft(kMeminfo, "", ""), 2048 * 1024);
  EXPECT_EQ(MemoryLeft(kMeminfo, "max\n", "500\n"), 2048 * 1024) << "a group without a limit";
  EXPECT_EQ(MemoryLeft(kMeminfo, "1000000\n", "400000\n"), 600000);
  EXPECT_EQ(MemoryLeft(kMeminfo, "9000000000\n", "400000\n"), 2048 * 1024);
  EXPECT_EQ(MemoryLeft(kMeminfo, "1000\n", "4000\n"), 0) << "more taken than allowed";
  EXPECT_EQ(MemoryLeft("", "1000\n", "400\n"), 600);
  EXPECT_EQ(MemoryLeft("", "", ""), std::nullopt);
}

TEST(MemoryLeftTest, SaysSomethingHere) {
  const auto left = MemoryLeft();
  ASSERT_TRUE(left.has_value());
  EXPECT_GT(*left, 0);
}

}  // namespace
}  // namespace kvc
