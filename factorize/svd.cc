#include "factorize/svd.h"

#include <cmath>

#include "core/error.h"

namespace kvc::factorize {
namespace {

void CheckFinite(ConstMatrixD a) {
  KVC_CHECK(a.rows > 0 && a.cols > 0,
            kBadShape,
            "decomposition: expected a matrix, got [",
            a.rows,
            ", ",
            a.cols,
            "]");
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      KVC_CHECK(std::isfinite(a(r, c)),
                kNumeric,
                "decomposition of [",
                a.rows,
                ", ",
                a.cols,
                "]: expected finite numbers, got ",
                a(r, c),
                " at (",
                r,
                ", ",
                c,
                ")");
    }
  }
}

// Sign that makes the largest component of column `c` positive.
double ColumnSign(const Matrix& a, int64_t c) {
  double largest = 0.0;
  for (int64_t r = 0; r < a.rows; ++r) {
    if (std::abs(a(r, c)) > std::abs(largest)) largest = a(r, c);
  }
  return largest < 0.0 ? -1.0 : 1.0;
}

void FlipColumn(Matrix& a, int64_t c) {
  for (int64_t r = 0; r < a.rows; ++r) a(r, c) = -a(r, c);
}

}  // namespace

std::string SvdBackendName(SvdBackend backend) {
  switch (backend) {
    case SvdBackend::kEigen:
      return "eigen";
    case SvdBackend::kLapack:
      return "lapack";
    case SvdBackend::kCuSolver:
      return "cusolver";
  }
  KVC_THROW(kInternal, "SVD backend without a name");
}

std::unique_ptr<Svd> Svd::Create(SvdBackend backend) {
  switch (backend) {
    case SvdBackend::kEigen:
      return detail::CreateEigenSvd();
    case SvdBackend::kLapack:
      return detail::CreateLapackSvd();
    case SvdBackend::kCuSolver:
      KVC_THROW(kDevice,
                "SVD backend: expected one of this build (eigen, lapack), got cusolver; "
                "use --device cpu");
  }
  KVC_THROW(kInternal, "unknown SVD backend");
}

SvdResult Svd::Decompose(ConstMatrixD a) const {
  CheckFinite(a);
  SvdResult result = DoDecompose(a);
  for (int64_t i = 0; i < result.u.cols; ++i) {
    if (ColumnSign(result.u, i) > 0.0) continue;
    FlipColumn(result.u, i);
    for (int64_t c = 0; c < result.vt.cols; ++c) result.vt(i, c) = -result.vt(i, c);
  }
  return result;
}

EigenResult Svd::DecomposeSymmetric(ConstMatrixD a) const {
  CheckFinite(a);
  KVC_CHECK(a.rows == a.cols,
            kBadShape,
            "eigenvectors: expected a square matrix, got [",
            a.rows,
            ", ",
            a.cols,
            "]");
  EigenResult result = DoDecomposeSymmetric(a);
  for (int64_t i = 0; i < result.vectors.cols; ++i) {
    if (ColumnSign(result.vectors, i) < 0.0) FlipColumn(result.vectors, i);
  }
  return result;
}

}  // namespace kvc::factorize
