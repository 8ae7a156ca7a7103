#include "linalg/svd.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "linalg/blas_threads.h"
#include "linalg/gram.h"
#include "linalg/svd_checks.h"

namespace kvc::linalg {
namespace {

void CheckShape(int64_t rows, int64_t cols) {
  KVC_CHECK(rows > 0 && cols > 0, kBadShape, "decomposition: expected a matrix, got [{}, {}]", rows,
            cols);
}

void CheckFinite(ConstMatrixD a) {
  CheckShape(a.rows, a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      KVC_CHECK(std::isfinite(a(r, c)), kNumeric,
                "decomposition of [{}, {}]: expected finite numbers, got {} at ({}, {})", a.rows,
                a.cols, a(r, c), r, c);
    }
  }
}

// Turns the columns whose largest component is negative and returns which they were. It goes row by
// row, because columns of a matrix as wide as a power of two share few lines of the cache.
std::vector<bool> FixSigns(Matrix& vectors) {
  std::vector<double> largest(vectors.cols, 0.0);  // component of each column
  for (int64_t r = 0; r < vectors.rows; ++r) {
    for (int64_t c = 0; c < vectors.cols; ++c) {
      const double value = vectors(r, c);
      if (std::abs(value) > std::abs(largest[c])) largest[c] = value;
    }
  }
  for (int64_t r = 0; r < vectors.rows; ++r) {
    for (int64_t c = 0; c < vectors.cols; ++c) {
      if (largest[c] < 0.0) vectors(r, c) = -vectors(r, c);
    }
  }
  std::vector<bool> turned;
  for (const double value : largest) turned.push_back(value < 0.0);
  return turned;
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

std::unique_ptr<Svd> Svd::Create(SvdBackend backend, int num_threads) {
  const auto create = [backend] {
    switch (backend) {
      case SvdBackend::kEigen:
        return detail::CreateEigenSvd();
      case SvdBackend::kLapack:
        return detail::CreateLapackSvd();
      case SvdBackend::kCuSolver:
#ifdef KVC_CUDA
        return detail::CreateCuSolverSvd();
#else
        KVC_THROW(kDevice,
                  "SVD backend: expected one of this build (eigen, lapack), got cusolver; use "
                  "--device cpu");
#endif
    }
    KVC_THROW(kInternal, "unknown SVD backend");
  };
  std::unique_ptr<Svd> svd = create();
  svd->pool_ = std::make_unique<ThreadPool>(num_threads);
  return svd;
}

Svd::Svd() = default;
Svd::~Svd() = default;

SvdResult Svd::Decompose(ConstMatrixD a) const {
  CheckFinite(a);
  SvdResult result = DoDecompose(a);
  const std::vector<bool> turned = FixSigns(result.u);
  for (int64_t i = 0; i < result.u.cols; ++i) {
    if (!turned[i]) continue;
    for (int64_t c = 0; c < result.vt.cols; ++c) result.vt(i, c) = -result.vt(i, c);
  }
  return result;
}

EigenResult Svd::DecomposeSymmetric(ConstMatrixD a) const {
  CheckFinite(a);
  KVC_CHECK(a.rows == a.cols, kBadShape, "eigenvectors: expected a square matrix, got [{}, {}]",
            a.rows, a.cols);
  EigenResult result = DoDecomposeSymmetric(a);
  FixSigns(result.vectors);
  return result;
}

std::vector<GramResult> Svd::DecomposeGrams(std::span<const ConstMatrixF> blocks) const {
  for (const ConstMatrixF& block : blocks) CheckShape(block.rows, block.cols);
  std::vector<GramResult> results = DoDecomposeGrams(blocks);
  pool_->ParallelFor(std::ssize(results), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) FixSigns(results[i].eigen.vectors);
  });
  return results;
}

std::vector<GramResult> Svd::DoDecomposeGrams(std::span<const ConstMatrixF> blocks) const {
  // Blocks are what runs side by side, and what is split over threads in another way rounds in
  // another way.
  const SingleBlasThread single;
  std::vector<GramResult> results(blocks.size());
  pool_->ParallelFor(std::ssize(blocks), 1, [&](int64_t i, int64_t) {
    results[i].gram = detail::GramOf(blocks[i]);
    detail::CheckGram(blocks[i], results[i].gram);
    results[i].eigen = DoDecomposeGram(results[i].gram);
  });
  return results;
}

EigenResult Svd::DoDecomposeGram(const Matrix& gram) const {
  return DoDecomposeSymmetric(gram.view());
}

}  // namespace kvc::linalg
