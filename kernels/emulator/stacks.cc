#include "kernels/emulator/stacks.h"

#include <sys/mman.h>

#include "core/base/error.h"

namespace kvc::emulator {
namespace {
constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kColourStep = 576;  // nine cache lines
constexpr size_t kColours = 8192;
}  // namespace

Stacks::~Stacks() {
  if (memory_ != nullptr) {
    munmap(memory_, count_ * kStackBytes);
  }
}

void Stacks::Reserve(size_t count) {
  if (count <= count_) {
    return;
  }
  if (memory_ != nullptr) {
    munmap(memory_, count_ * kStackBytes);
    memory_ = nullptr;
    count_ = 0;
  }
  void* memory = mmap(nullptr, count * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  KVC_CHECK(memory != MAP_FAILED, kDevice,
            "emulator: expected {} stacks of {} bytes, got no memory", count, kStackBytes);
  memory_ = static_cast<std::byte*>(memory);
  count_ = count;
  for (size_t i = 0; i < count; ++i) {
    mprotect(memory_ + i * kStackBytes, kGuardBytes, PROT_NONE);
  }
}

Stacks::Range Stacks::At(size_t i) const {
  const size_t colour = i * kColourStep % kColours / 64 * 64;
  return {memory_ + (i + 1) * kStackBytes - colour, kStackBytes - kGuardBytes - colour};
}

}  // namespace kvc::emulator
