#pragma once
// Rows of a move (move_rows.h) as kernels find them.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/move_rows.h"

namespace kvc::cuda {

__device__ __forceinline__ int64_t SourceRow(const RowMove& move, int i) {
  return move.from_rows != nullptr ? move.from_rows[i] : move.from_first + i;
}
__device__ __forceinline__ int64_t TargetRow(const RowMove& move, int i) {
  const int64_t row =
      static_cast<int64_t>(move.to_first) + (move.held != nullptr ? *move.held : 0) + i;
  return move.ring > 0 ? row % move.ring : row;
}

}  // namespace kvc::cuda
