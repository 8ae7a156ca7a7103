#pragma once
// A view of a row-major matrix: a pointer and sizes. It owns nothing and is valid only as long as
// the memory that it points into. Nothing checks indices.

#include <cstdint>
#include <span>
#include <type_traits>

namespace kvc {

// A matrix [rows, cols] of T.
template <class T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next; >= cols

  MatrixView() = default;
  MatrixView(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  MatrixView(T* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  // A writable view converts to a read-only one.
  template <class U>
  requires(std::is_same_v<T, const U>)
      MatrixView(const MatrixView<U>& other)  // NOLINT(google-explicit-constructor)
      : data(other.data), rows(other.rows), cols(other.cols), stride(other.stride) {}

  [[nodiscard]] T* row(int64_t r) const { return data + r * stride; }
  [[nodiscard]] T& operator()(int64_t r, int64_t c) const { return data[r * stride + c]; }
  [[nodiscard]] MatrixView RowRange(int64_t begin, int64_t count) const {
    return {row(begin), count, cols, stride};
  }
  [[nodiscard]] MatrixView ColRange(int64_t begin, int64_t count) const {
    return {data + begin, rows, count, stride};
  }
};

using MatrixF = MatrixView<float>;
using ConstMatrixF = MatrixView<const float>;
using MatrixD = MatrixView<double>;
using ConstMatrixD = MatrixView<const double>;

}  // namespace kvc
