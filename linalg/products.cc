#include "linalg/products.h"

#include <algorithm>

#include <cblas.h>

#include "core/base/error.h"
#include "linalg/blas_threads.h"

namespace kvc::linalg {
namespace {

// BLAS knows no product without an inner dimension: its sums are empty.
void SetToZero(MatrixF c) {
  for (int64_t row = 0; row < c.rows; ++row) std::fill_n(c.row(row), c.cols, 0.0F);
}

// C = alpha A op(B) (+ C), where op transposes B or not.
template <CBLAS_TRANSPOSE kOp>
void Gemm(
    const char* name, float alpha, ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c) {
  constexpr bool kTransposed = kOp == CblasTrans;
  const int64_t inner = kTransposed ? b.cols : b.rows;
  const int64_t outer = kTransposed ? b.rows : b.cols;
  KVC_CHECK(
      a.cols == inner && a.rows == c.rows && outer == c.cols, kBadShape,
      "{}: expected sizes that agree, got A [{}, {}], B [{}, {}], C [{}, {}]; check the caller",
      name, a.rows, a.cols, b.rows, b.cols, c.rows, c.cols);
  if (c.rows == 0 || c.cols == 0) return;
  if (inner == 0) {
    if (!accumulate) SetToZero(c);
    return;
  }
  const SingleBlasThread single;  // it would otherwise run its own threads beside the pool's
  cblas_sgemm(CblasRowMajor, CblasNoTrans, kOp, static_cast<int>(c.rows), static_cast<int>(c.cols),
              static_cast<int>(inner), alpha, a.data, static_cast<int>(a.stride), b.data,
              static_cast<int>(b.stride), accumulate ? 1.0F : 0.0F, c.data,
              static_cast<int>(c.stride));
}

}  // namespace

void GemmNT(float alpha, ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c) {
  Gemm<CblasTrans>("GemmNT", alpha, a, b, accumulate, c);
}

void GemmNN(ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c) {
  Gemm<CblasNoTrans>("GemmNN", 1.0F, a, b, accumulate, c);
}

}  // namespace kvc::linalg
