#include "linalg/matrix.h"

#include <algorithm>

#include <cblas.h>

namespace kvc::linalg {
namespace {

blasint Size(int64_t size) { return static_cast<blasint>(size); }

// a op(b), where op transposes b or not, and op(b) has `cols` columns.
Matrix Product(ConstMatrixD a, ConstMatrixD b, CBLAS_TRANSPOSE op, int64_t cols) {
  Matrix result(a.rows, cols);
  if (a.rows == 0 || a.cols == 0 || cols == 0) return result;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, op, Size(a.rows), Size(cols), Size(a.cols), 1.0, a.data,
              Size(a.stride), b.data, Size(b.stride), 0.0, result.data.data(), Size(cols));
  return result;
}

}  // namespace

Matrix Identity(int64_t size) {
  Matrix identity(size, size);
  for (int64_t i = 0; i < size; ++i) identity(i, i) = 1.0;
  return identity;
}

Matrix Transpose(ConstMatrixD a) {
  constexpr int64_t kTile = 32;  // rows of the result that one pass over a part of `a` fills
  Matrix result(a.cols, a.rows);
  for (int64_t begin = 0; begin < a.cols; begin += kTile) {
    const int64_t end = std::min(a.cols, begin + kTile);
    for (int64_t r = 0; r < a.rows; ++r) {
      for (int64_t c = begin; c < end; ++c) result(c, r) = a(r, c);
    }
  }
  return result;
}

Matrix Multiply(ConstMatrixD a, ConstMatrixD b) { return Product(a, b, CblasNoTrans, b.cols); }

Matrix MultiplyTransposed(ConstMatrixD a, ConstMatrixD b) {
  return Product(a, b, CblasTrans, b.rows);
}

double Energy(ConstMatrixD a, ConstMatrixD g) {
  const Matrix product = Multiply(a, g);  // [r, m]
  double energy = 0.0;
  for (int64_t r = 0; r < a.rows; ++r) {
    energy += cblas_ddot(Size(a.cols), product.data.data() + r * product.cols, 1, a.row(r), 1);
  }
  return energy;
}

}  // namespace kvc::linalg
