#pragma once
// Selection of the best rows of each group on the device, by the rule of runtime/policy: the
// highest scores, of equal ones the first rows. A table of selections is executed in one launch, in
// a time that depends on the longest of them. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// The min(count, rows) best of a group's rows. All pointers are of the device.
struct Selection {
  const float* scores = nullptr;  // [rows]; infinities are scores like others, none is a NaN
  int32_t* chosen = nullptr;      // [min(count, rows)]: written, row numbers that ascend
  float* best = nullptr;          // [min(count, rows)]: written, their scores; or null
  int32_t rows = 0;
  int32_t count = 0;
};

// Executes selections [count] on the device. The result does not depend on the order of threads.
void SelectTop(const Selection* selections, int32_t count, StreamHandle stream);

}  // namespace kvc::cuda
