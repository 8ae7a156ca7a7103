#pragma once
// Random arrays in every dtype, with the numbers that they hold as double.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/rng.h"
#include "core/base/view.h"
#include "kernels/attention.h"

namespace kvc::kernels {

constexpr double kUnit = 0x1.0p-24;  // largest relative error of one rounding to float

// A matrix [rows, cols] in a dtype; rows `stride` elements apart, what lies between them is NaN.
struct TestArray {
  std::vector<char> bytes;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  [[nodiscard]] double operator()(int64_t r, int64_t c) const {
    float value = 0.0F;
    ConvertToFloat(dtype, bytes.data() + (r * stride + c) * DTypeBytes(dtype), 1, &value);
    return static_cast<double>(value);
  }
  void Set(int64_t r, int64_t c, float value) {
    ConvertFromFloat(&value, 1, dtype, bytes.data() + (r * stride + c) * DTypeBytes(dtype));
  }
  [[nodiscard]] RowBlock block() const { return {bytes.data(), dtype, rows, cols, stride}; }
  [[nodiscard]] MatrixF view() {
    return {reinterpret_cast<float*>(bytes.data()), rows, cols, stride};
  }
  [[nodiscard]] ConstMatrixF view() const {
    return {reinterpret_cast<const float*>(bytes.data()), rows, cols, stride};
  }
};

// Normal numbers times `scale`; `gap` elements between rows. Nothing may be read behind the last
// row: the buffer ends there.
inline TestArray RandomArray(Rng& rng,
                             int64_t rows,
                             int64_t cols,
                             DType dtype = DType::kF32,
                             int64_t gap = 0,
                             double scale = 1.0) {
  TestArray array;
  array.dtype = dtype;
  array.rows = rows;
  array.cols = cols;
  array.stride = cols + gap;
  const int64_t count = rows == 0 ? 0 : (rows - 1) * array.stride + cols;
  array.bytes.resize(static_cast<size_t>(count * DTypeBytes(dtype)));
  const float nan = std::nanf("");
  for (int64_t i = 0; i < count; ++i) {
    const bool inside = i % array.stride < cols;
    const float value = inside ? static_cast<float>(scale * rng.NextNormal()) : nan;
    ConvertFromFloat(&value, 1, dtype, array.bytes.data() + i * DTypeBytes(dtype));
  }
  return array;
}

// Makes rows 0, 3, 6, ... of b [D, R] the unit vectors e_0, e_1, ..., at most `count`.
inline void SetUnitRows(int64_t count, TestArray* b) {
  for (int64_t i = 0; i < std::min(count, b->cols) && 3 * i < b->rows; ++i) {
    for (int64_t r = 0; r < b->cols; ++r) {
      b->Set(3 * i, r, r == i ? 1.0F : 0.0F);
    }
  }
}

inline bool SameBits(const TestArray& a, const TestArray& b) {
  return a.bytes.size() == b.bytes.size() &&
         std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

}  // namespace kvc::kernels
