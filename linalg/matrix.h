#pragma once
// An owning row-major matrix in double precision, and the few products that factoring needs
// (OpenBLAS). Sizes must agree; nothing checks them.

#include <cstdint>
#include <vector>

#include "core/base/view.h"

namespace kvc::linalg {

struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> data;

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), data(r * c, 0.0) {}

  [[nodiscard]] double& operator()(int64_t r, int64_t c) { return data[r * cols + c]; }
  [[nodiscard]] double operator()(int64_t r, int64_t c) const { return data[r * cols + c]; }
  [[nodiscard]] ConstMatrixD view() const { return {data.data(), rows, cols}; }
  [[nodiscard]] MatrixD view() { return {data.data(), rows, cols}; }
};

[[nodiscard]] Matrix Identity(int64_t size);
[[nodiscard]] Matrix Transpose(ConstMatrixD a);
// a b
[[nodiscard]] Matrix Multiply(ConstMatrixD a, ConstMatrixD b);
// a b^T
[[nodiscard]] Matrix MultiplyTransposed(ConstMatrixD a, ConstMatrixD b);
// The energy of the rows of a [r, m] under a symmetric g [m, m]: trace(a g a^T).
[[nodiscard]] double Energy(ConstMatrixD a, ConstMatrixD g);

}  // namespace kvc::linalg
