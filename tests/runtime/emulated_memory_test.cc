// A device with too little memory, which only the emulator can be made to be.

#include <gtest/gtest.h>

#include "kernels/cuda/runtime.h"
#include "kernels/emulator/memory.h"
#include "tests/runtime/both_backends.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::PrefillLast;

// The need is said before anything is allocated, of weights and of a prompt.
TEST(EmulatedMemory, TooLittleMemoryIsRefusedWithNeedAndHave) {
  const size_t limit = emulator::GetMemoryUse().limit;
  const size_t before = cuda::UsedBytes();
  {
    Both both("llama");
    const auto sequence = both.OnDevice(both.processor.geometry());
    const size_t loaded = cuda::UsedBytes();
    emulator::SetMemoryLimit(loaded + 5000);
    EXPECT_KVC_ERROR(PrefillLast(both.session, *sequence, RandomIds(30, 1)), kDevice,
                     "for a prompt of 30 tokens, got 5000");
    EXPECT_EQ(cuda::UsedBytes(), loaded);
    emulator::SetMemoryLimit(limit);
    EXPECT_NO_THROW(PrefillLast(both.session, *sequence, RandomIds(30, 1)));
  }
  emulator::SetMemoryLimit(before + 1000);
  EXPECT_KVC_ERROR(Both("llama"), kDevice, "for the model's weights, got 1000");
  EXPECT_EQ(cuda::UsedBytes(), before);
  emulator::SetMemoryLimit(limit);
}

}  // namespace
}  // namespace kvc::runtime
