#include "kernels/cpu/scratch.h"

#include <array>
#include <memory>
#include <new>

namespace kvc::kernels {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(float* data) const { ::operator delete(data, kAlignment); }
};

struct Buffer {
  std::unique_ptr<float, Free> data;
  int64_t count = 0;
};

}  // namespace

float* Scratch(ScratchUse use, int64_t count) {
  thread_local std::array<Buffer, static_cast<size_t>(ScratchUse::kCount)> buffers;
  Buffer& buffer = buffers[static_cast<size_t>(use)];
  if (buffer.count < count) {
    buffer.data.reset();
    buffer.count = 0;
    void* fresh = ::operator new(static_cast<size_t>(count) * sizeof(float), kAlignment);
    buffer.data.reset(static_cast<float*>(fresh));
    buffer.count = count;
  }
  return buffer.data.get();
}

}  // namespace kvc::kernels
