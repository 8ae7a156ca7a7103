#pragma once
// A matrix of floats that a scorer owns while it works.

#include <cstdint>
#include <vector>

#include "core/base/view.h"

namespace kvc::scorers {

// A float matrix that owns its elements; they start as zero. Move-only, because `view` points into
// `data`.
struct FloatMatrix {
  std::vector<float> data;
  MatrixF view;

  FloatMatrix() = default;
  FloatMatrix(int64_t rows, int64_t cols)
      : data(static_cast<size_t>(rows * cols)), view(data.data(), rows, cols) {}
  FloatMatrix(const FloatMatrix&) = delete;
  FloatMatrix& operator=(const FloatMatrix&) = delete;
  FloatMatrix(FloatMatrix&&) = default;
  FloatMatrix& operator=(FloatMatrix&&) = default;
};

}  // namespace kvc::scorers
