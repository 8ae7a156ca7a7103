#include "runtime/cpu/host_device.h"

#include <cstring>
#include <new>

#include "core/base/error.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
namespace {

constexpr std::align_val_t kAlignment{64};

// memcpy, which may not be called with a null pointer even for nothing.
void CopyBytes(const void* from, void* to, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

HostDevice& SharedHostDevice() {
  static HostDevice device;
  return device;
}

void* HostDevice::Allocate(int64_t bytes) {
  void* memory = ::operator new(static_cast<size_t>(bytes), kAlignment, std::nothrow);
  KVC_CHECK(memory != nullptr, kIo, "cache: expected {} bytes of memory, got none", bytes);
  return memory;
}

void HostDevice::Free(void* memory, int64_t /*bytes*/) noexcept {
  ::operator delete(memory, kAlignment);
}

void HostDevice::ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) {
  CopyBytes(host, HostMemory::Of(to) + offset, bytes);
}

void HostDevice::ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) {
  CopyBytes(HostMemory::Of(from) + offset, host, bytes);
}

void HostDevice::Copy(
    const Buffer& from, int64_t from_offset, const Buffer& to, int64_t to_offset, int64_t bytes) {
  CopyBytes(HostMemory::Of(from) + from_offset, HostMemory::Of(to) + to_offset, bytes);
}

}  // namespace kvc::runtime
