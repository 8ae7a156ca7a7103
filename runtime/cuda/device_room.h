#pragma once
// Memory for a number of values on the device, and sizes as tables of launches hold them.

#include <algorithm>
#include <cstdint>

#include "runtime/cuda/cuda_device.h"
#include "runtime/device.h"

namespace kvc::runtime {

inline constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));

// Uninitialised memory for `count` values, and for one where there are none, so that it has an
// address. It is counted in no budget.
template <class T>
[[nodiscard]] Buffer Room(int64_t count, CudaDevice& device) {
  return Buffer(std::max<int64_t>(count, 1) * static_cast<int64_t>(sizeof(T)), device, nullptr);
}

// Sizes that were checked where they came from: tokens, rows, widths.
[[nodiscard]] constexpr int32_t Int(int64_t x) { return static_cast<int32_t>(x); }

}  // namespace kvc::runtime
