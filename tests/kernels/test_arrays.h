#pragma once
// Random arrays in every row format, with the numbers that they hold as double.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "core/base/view.h"
#include "kernels/attention.h"

namespace kvc::kernels {

constexpr double kUnit = 0x1.0p-24;  // largest relative error of one rounding to float

// A matrix [rows, cols] in a row format; rows `stride` bytes apart, what lies between them is NaN.
struct TestArray {
  std::vector<char> bytes;
  RowFormat format = {};
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  std::vector<float> steps = {};  // [cols] where the format needs them; of a mixture [3, cols]
  RunEnds ends = {};              // of a mixture

  [[nodiscard]] CodeSteps code() const {
    return IsMixed(format) ? CodeSteps(steps.data(), cols, ends) : CodeSteps(steps.data());
  }

  [[nodiscard]] std::vector<float> Row(int64_t r, int64_t count) const {
    std::vector<float> row(static_cast<size_t>(count));
    DecodeRows(bytes.data() + r * stride, format, stride, {row.data(), 1, count}, code());
    return row;
  }
  // Column `cols` of plain rows reads what lies behind them.
  [[nodiscard]] double operator()(int64_t r, int64_t c) const { return Row(r, c + 1).back(); }
  void Set(int64_t r, int64_t c, float value) {
    std::vector<float> row = Row(r, cols);
    row[static_cast<size_t>(c)] = value;
    EncodeRows({row.data(), 1, cols}, format, bytes.data() + r * stride, stride, code());
  }
  [[nodiscard]] RowBlock block() const {
    return {bytes.data(), format, rows, cols, stride, code()};
  }
  [[nodiscard]] MatrixF view() {
    return {reinterpret_cast<float*>(bytes.data()), rows, cols, stride / 4};
  }
  [[nodiscard]] ConstMatrixF view() const {
    return {reinterpret_cast<const float*>(bytes.data()), rows, cols, stride / 4};
  }
};

// Steps of a column's own for each number of bits, three standard deviations in range, and runs of
// blocks that begin anywhere.
inline void AddSteps(Rng& rng, double scale, TestArray& array) {
  const bool mixed = IsMixed(array.format);
  for (const int32_t bits : kCodeBits) {
    if (!mixed && bits != ElementBits(array.format)) continue;
    const double codes = std::pow(2.0, bits);
    for (int64_t c = 0; c < array.cols; ++c) {
      array.steps.push_back(static_cast<float>(scale * (5.0 + 2.0 * rng.NextDouble()) / codes));
    }
  }
  if (!mixed) return;
  const int64_t blocks = (array.cols + kColumnBlock - 1) / kColumnBlock;
  for (int32_t& end : array.ends) {
    end = static_cast<int32_t>(kColumnBlock * rng.NextBelow(blocks + 1));
  }
  std::ranges::sort(array.ends);
}

// Normal numbers times `scale`; `gap` elements between rows. Nothing may be read behind the last
// row: the buffer ends there.
inline TestArray RandomArray(Rng& rng,
                             int64_t rows,
                             int64_t cols,
                             const RowFormat& format = kRowsF32,
                             int64_t gap = 0,
                             double scale = 1.0) {
  TestArray array;
  array.format = format;
  array.rows = rows;
  array.cols = cols;
  if (NeedsSteps(format)) AddSteps(rng, scale, array);
  const int64_t row_bytes = RowBytes(format, cols, array.code());
  array.stride = row_bytes + gap * ElementBits(format) / 8;
  const int64_t count = rows == 0 ? 0 : (rows - 1) * array.stride + row_bytes;
  array.bytes.assign(static_cast<size_t>(count), '\xff');  // NaN in every float type
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& value : row) value = static_cast<float>(scale * rng.NextNormal());
    EncodeRows({row.data(), 1, cols}, format, array.bytes.data() + r * array.stride, array.stride,
               array.code());
  }
  return array;
}

inline TestArray RandomArray(
    Rng& rng, int64_t rows, int64_t cols, DType dtype, int64_t gap = 0, double scale = 1.0) {
  return RandomArray(rng, rows, cols, RowFormatOf(dtype), gap, scale);
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
