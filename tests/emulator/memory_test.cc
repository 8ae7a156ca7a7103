#include "kernels/emulator/memory.h"

#include <cstring>
#include <optional>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "kernels/emulator/address_range.h"

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

// Ten units of 512 bytes: 256 and a gap of 256.
TEST(AddressRangeTest, AddressesComeAgainWhenTheRangeIsUsedUp) {
  AddressRange range(10 * 512);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(range.Take(200), i * 512);
  for (const size_t unit : {1, 4, 5}) range.Give(unit * 512);
  EXPECT_EQ(range.Take(256), 8U * 512);  // not those, as long as there are fresh ones
  EXPECT_EQ(range.Take(700), 4U * 512);  // 1024 with its gap: the last unit is too small
  EXPECT_EQ(range.Take(1), 9U * 512);
  EXPECT_EQ(range.Take(1), 1U * 512);
  EXPECT_EQ(range.Take(1), std::nullopt);
  range.Give(0);
  EXPECT_EQ(range.Take(257), std::nullopt);
  EXPECT_EQ(range.Take(0), 0U);
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
