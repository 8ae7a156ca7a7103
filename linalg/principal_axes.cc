#include "linalg/principal_axes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/error.h"
#include "linalg/blas_threads.h"

// LAPACK's own symbol: OpenBLAS holds it, its header does not declare it.
extern "C" void ssyevr_(const char* jobz,
                        const char* range,
                        const char* uplo,
                        const int* n,
                        float* a,
                        const int* lda,
                        const float* vl,
                        const float* vu,
                        const int* il,
                        const int* iu,
                        const float* abstol,
                        int* m,
                        float* w,
                        float* z,
                        const int* ldz,
                        int* isuppz,
                        float* work,
                        const int* lwork,
                        int* iwork,
                        const int* liwork,
                        int* info);

namespace kvc::linalg {
namespace {

void CheckInput(ConstMatrixF symmetric, ConstMatrixF axes) {
  const int64_t n = symmetric.rows;
  const bool is_square = symmetric.cols == n && symmetric.stride == n;
  KVC_CHECK(is_square, kBadShape, "principal axes: expected a dense square matrix, got [{}, {}]", n,
            symmetric.cols);
  KVC_CHECK(axes.rows <= n && axes.cols == n && axes.stride == n, kBadShape,
            "principal axes: expected at most {0} dense axes of width {0}, got [{1}, {2}]", n,
            axes.rows, axes.cols);
  for (int64_t i = 0; i < n * n; ++i) {
    KVC_CHECK(std::isfinite(symmetric.data[i]), kNumeric,
              "principal axes: expected finite numbers, got {}", symmetric.data[i]);
  }
}

}  // namespace

void PrincipalAxes(MatrixF symmetric, MatrixF axes) {
  const auto n = static_cast<int>(symmetric.rows);
  const auto count = static_cast<int>(axes.rows);
  CheckInput(symmetric, axes);
  if (count == 0) return;
  const SingleBlasThread single;
  const float unused = 0.0F;
  const int first = n - count + 1;  // eigenvalues ascend
  int found = 0;
  int info = 0;
  std::vector<float> values(static_cast<size_t>(n));
  std::vector<int> support(static_cast<size_t>(2 * count));
  const int work_size = 26 * n;  // what LAPACK asks for at least
  const int index_size = 10 * n;
  std::vector<float> work(static_cast<size_t>(work_size));
  std::vector<int> indices(static_cast<size_t>(index_size));
  ssyevr_("V", "I", "U", &n, symmetric.data, &n, &unused, &unused, &first, &n, &unused, &found,
          values.data(), axes.data, &n, support.data(), work.data(), &work_size, indices.data(),
          &index_size, &info);
  KVC_CHECK(info == 0 && found == count, kNumeric,
            "principal axes: expected {} eigenvectors, got {} (LAPACK says {})", count, found,
            info);
  for (int i = 0; i < count / 2; ++i) {
    std::swap_ranges(axes.row(i), axes.row(i) + n, axes.row(count - 1 - i));
  }
}

}  // namespace kvc::linalg
