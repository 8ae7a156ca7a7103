#pragma once
// The way from a buffer of the host's memory to a pointer. Nothing outside runtime/cpu may include
// this file (cmake/check_layers.cmake), but tests.

#include <cstddef>

#include "runtime/device.h"

namespace kvc::runtime {

struct HostMemory {
  // Null for a buffer without bytes. Valid as long as the buffer.
  [[nodiscard]] static std::byte* Of(const Buffer& buffer) {
    return static_cast<std::byte*>(buffer.memory_);
  }
  [[nodiscard]] static float* Floats(const Buffer& buffer) {
    return static_cast<float*>(buffer.memory_);
  }
};

}  // namespace kvc::runtime
