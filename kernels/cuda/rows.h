#pragma once
// Matrices in device memory. Plain C++17: kernels and the host include this.

#include <cstdint>

#include "core/base/dtype.h"

namespace kvc::cuda {

// Rows [rows, width] of `dtype` (kF32, kF16 or kBF16), `stride` elements apart.
struct ConstRows {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t stride = 0;
};
struct Rows {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t stride = 0;

  operator ConstRows() const { return {data, dtype, rows, width, stride}; }
};

}  // namespace kvc::cuda
