#pragma once
// Shares of a prompt's tokens that another score chooses, on the device: the twin of what
// scorers/output_error.cc does with the options `recent` and `keydiff`, with the same result to the
// bit. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// The row that `other` ranks p-th (by falling value, of equal ones the first row) gets at least the
// score with rank floor(p step), as long as there is one. All pointers are of the device; no NaN.
struct ShareReserve {
  const float* other = nullptr;  // [rows]
  float* scores = nullptr;       // [rows], raised
  int32_t rows = 0;
  double step = 0.0;            // (1 - share) / share
  uint32_t* scratch = nullptr;  // [kReserveScratch * rows]
};
constexpr int64_t kReserveScratch = 6;

// Executes reservations [count] on the device, a block for each.
void ReserveShares(const ShareReserve* shares, int32_t count, StreamHandle stream);

}  // namespace kvc::cuda
