#include "kernels/emulator/memory.h"

#include <cstring>

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace kvc::emulator {
namespace {

TEST(MemoryTest, AllocationsHaveGapsAndAreNeverUsedTwice) {
  auto* first = static_cast<std::byte*>(Allocate(300));
  auto* second = static_cast<std::byte*>(Allocate(1));
  EXPECT_GE(second, first + 300 + 256);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % 256, 0U);
  EXPECT_NE(FindAllocation(first, 300), nullptr);
  EXPECT_NE(FindAllocation(first + 299, 1), nullptr);
  EXPECT_EQ(FindAllocation(first + 299, 2), nullptr);
  EXPECT_EQ(FindAllocation(first - 1, 1), nullptr);
  Free(first);
  EXPECT_EQ(FindAllocation(first, 1), nullptr);
  EXPECT_TRUE(InDeviceRange(first));
  auto* third = static_cast<std::byte*>(Allocate(300));
  EXPECT_GT(third, second);
  Free(second);
  Free(third);
}

TEST(MemoryTest, FreshMemoryIsNan) {
  auto* values = static_cast<float*>(Allocate(64));
  for (int i = 0; i < 16; ++i) {
    EXPECT_NE(values[i], values[i]);
  }
  Free(values);
}

TEST(MemoryTest, TheLimitIsKeptWithNeedAndHave) {
  const MemoryUse before = GetMemoryUse();
  SetMemoryLimit(before.used + 1000);
  void* memory = Allocate(600);
  try {
    Allocate(401);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDevice);
    EXPECT_NE(std::string(error.what()).find("expected 401 free bytes, got 400"),
              std::string::npos);
  }
  Free(memory);
  EXPECT_EQ(GetMemoryUse().used, before.used);
  EXPECT_GE(GetMemoryUse().peak, before.used + 600);
  ResetPeak();
  EXPECT_EQ(GetMemoryUse().peak, before.used);
  SetMemoryLimit(before.limit);
}

TEST(MemoryTest, FreeingWhatIsNoAllocationIsRefused) {
  auto* memory = static_cast<std::byte*>(Allocate(64));
  EXPECT_THROW(Free(memory + 1), Error);
  Free(memory);
  EXPECT_THROW(Free(memory), Error);
  EXPECT_NO_THROW(Free(nullptr));
}

}  // namespace
}  // namespace kvc::emulator
