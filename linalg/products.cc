// Single-threaded OpenBLAS products on views. The parts of a product are ours, so that a result
// does not depend on the number of threads.

#include "linalg/products.h"

#include <cblas.h>

#include "core/base/error.h"

namespace kvc::linalg {
namespace {

// OpenBLAS would otherwise run its own threads beside the pool's.
void UseOneBlasThread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)done;
}

void CheckShapes(bool agree, const char* name, ConstMatrixF a, ConstMatrixF b, MatrixF c) {
  KVC_CHECK(
      agree, kBadShape,
      "{}: expected sizes that agree, got A [{}, {}], B [{}, {}], C [{}, {}]; check the caller",
      name, a.rows, a.cols, b.rows, b.cols, c.rows, c.cols);
}

// BLAS knows no matrix without an inner dimension: the sum is empty then.
bool IsEmpty(int64_t inner, bool accumulate, MatrixF c) {
  if (c.rows == 0 || c.cols == 0) {
    return true;
  }
  if (inner > 0) {
    return false;
  }
  for (int64_t row = 0; row < c.rows && !accumulate; ++row) {
    for (int64_t col = 0; col < c.cols; ++col) {
      c(row, col) = 0.0F;
    }
  }
  return true;
}

}  // namespace

void GemmNT(float alpha, ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c) {
  CheckShapes(a.cols == b.cols && a.rows == c.rows && b.rows == c.cols, "GemmNT", a, b, c);
  if (IsEmpty(a.cols, accumulate, c)) {
    return;
  }
  UseOneBlasThread();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(c.rows),
              static_cast<int>(c.cols), static_cast<int>(a.cols), alpha, a.data,
              static_cast<int>(a.stride), b.data, static_cast<int>(b.stride),
              accumulate ? 1.0F : 0.0F, c.data, static_cast<int>(c.stride));
}

void GemmNN(ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c) {
  CheckShapes(a.cols == b.rows && a.rows == c.rows && b.cols == c.cols, "GemmNN", a, b, c);
  if (IsEmpty(a.cols, accumulate, c)) {
    return;
  }
  UseOneBlasThread();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(c.rows),
              static_cast<int>(c.cols), static_cast<int>(a.cols), 1.0F, a.data,
              static_cast<int>(a.stride), b.data, static_cast<int>(b.stride),
              accumulate ? 1.0F : 0.0F, c.data, static_cast<int>(c.stride));
}

}  // namespace kvc::linalg
