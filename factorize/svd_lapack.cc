#include <algorithm>

#include <lapacke.h>

#include "core/error.h"
#include "factorize/svd.h"

namespace kvc::factorize::detail {
namespace {

Matrix Copy(ConstMatrixD a) {
  Matrix result(a.rows, a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    std::copy_n(a.row(r), a.cols, result.data.begin() + r * a.cols);
  }
  return result;
}

void CheckInfo(lapack_int info, const char* routine, ConstMatrixD a) {
  KVC_CHECK(info == 0,
            kNumeric,
            "LAPACK ",
            routine,
            " of [",
            a.rows,
            ", ",
            a.cols,
            "]: expected info 0, got ",
            info,
            "; the matrix may be too badly scaled");
}

class LapackSvd : public Svd {
 public:
  [[nodiscard]] SvdBackend backend() const override { return SvdBackend::kLapack; }

 private:
  SvdResult DoDecompose(ConstMatrixD a) const override {
    Matrix copy = Copy(a);  // dgesdd destroys its input
    const int64_t k = std::min(a.rows, a.cols);
    SvdResult result;
    result.u = Matrix(a.rows, k);
    result.s.resize(k);
    result.vt = Matrix(k, a.cols);
    const lapack_int info = LAPACKE_dgesdd(LAPACK_ROW_MAJOR,
                                           'S',
                                           static_cast<lapack_int>(a.rows),
                                           static_cast<lapack_int>(a.cols),
                                           copy.data.data(),
                                           static_cast<lapack_int>(a.cols),
                                           result.s.data(),
                                           result.u.data.data(),
                                           static_cast<lapack_int>(k),
                                           result.vt.data.data(),
                                           static_cast<lapack_int>(a.cols));
    CheckInfo(info, "dgesdd", a);
    return result;
  }

  EigenResult DoDecomposeSymmetric(ConstMatrixD a) const override {
    // A symmetric matrix reads the same by columns, and LAPACKE need not transpose it; row i of
    // `rows` is then the i-th eigenvector, values ascending.
    Matrix rows = Copy(a);
    std::vector<double> ascending(a.rows);
    const lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR,
                                           'V',
                                           'U',
                                           static_cast<lapack_int>(a.rows),
                                           rows.data.data(),
                                           static_cast<lapack_int>(a.rows),
                                           ascending.data());
    CheckInfo(info, "dsyevd", a);
    EigenResult result;
    result.values.assign(ascending.rbegin(), ascending.rend());
    for (int64_t i = 0; i < a.rows / 2; ++i) {
      std::swap_ranges(rows.data.begin() + i * a.rows,
                       rows.data.begin() + (i + 1) * a.rows,
                       rows.data.begin() + (a.rows - 1 - i) * a.rows);
    }
    result.vectors = Transpose(rows.view());
    return result;
  }
};

}  // namespace

std::unique_ptr<Svd> CreateLapackSvd() { return std::make_unique<LapackSvd>(); }

}  // namespace kvc::factorize::detail
