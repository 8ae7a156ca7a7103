#pragma once
// The way from a buffer of a CUDA device's memory to its address on the device. The host cannot
// read there. Nothing outside runtime/cuda may include this file (cmake/check_layers.cmake).

#include <cstddef>

#include "runtime/device.h"

namespace kvc::runtime {

struct DeviceMemory {
  // Null for a buffer without bytes. Valid as long as the buffer.
  [[nodiscard]] static std::byte* Of(const Buffer& buffer) {
    return static_cast<std::byte*>(buffer.memory_);
  }
  [[nodiscard]] static float* Floats(const Buffer& buffer) {
    return static_cast<float*>(buffer.memory_);
  }
  [[nodiscard]] static int32_t* Ints(const Buffer& buffer) {
    return static_cast<int32_t*>(buffer.memory_);
  }
};

}  // namespace kvc::runtime
