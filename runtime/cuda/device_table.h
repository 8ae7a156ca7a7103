#pragma once
// A small array on the device that the host writes whole: tables of launches, lists of rows.

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/device.h"

namespace kvc::runtime {

// Keeps its memory as long as what is set fits.
template <class T>
class DeviceTable {
 public:
  // Copies `values` in the stream's order. The address changes only where more room is needed.
  void Set(std::span<const T> values, CudaDevice& device) {
    Reserve(std::ssize(values), device);
    device.Upload(std::as_bytes(values), data());
  }
  // Makes room for `count` values, whose content is then undefined if there was less.
  void Reserve(int64_t count, CudaDevice& device) {
    const auto bytes = count * static_cast<int64_t>(sizeof(T));
    if (buffer_.bytes() < bytes) buffer_ = Buffer(bytes, device, nullptr);
  }
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(DeviceMemory::Of(buffer_)); }

 private:
  Buffer buffer_;
};

}  // namespace kvc::runtime
