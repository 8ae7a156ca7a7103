#include <algorithm>
#include <cmath>
#include <numeric>

#include <lapacke.h>

#include "core/base/error.h"
#include "linalg/svd.h"

namespace kvc::linalg::detail {
namespace {

Matrix Copy(ConstMatrixD a) {
  Matrix result(a.rows, a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    std::copy_n(a.row(r), a.cols, result.data.begin() + r * a.cols);
  }
  return result;
}

void CheckInfo(lapack_int info, const char* routine, ConstMatrixD a) {
  KVC_CHECK(info == 0, kNumeric,
            "LAPACK {} of [{}, {}]: expected info 0, got {}; the matrix may be too badly scaled",
            routine, a.rows, a.cols, info);
}

// The tridiagonal form t of a matrix: a = q t q^T.
struct Tridiagonal {
  std::vector<double> reflectors;  // [n, n] by columns: q, as dsytrd leaves it below the diagonal
  std::vector<double> factors;     // [n - 1] of the reflectors
  std::vector<double> diagonal;    // [n]
  std::vector<double> beside;      // [n - 1]
};

Tridiagonal Tridiagonalise(const Matrix& a) {
  const auto n = static_cast<lapack_int>(a.rows);
  Tridiagonal t{a.data,
                std::vector<double>(n),  // LAPACK wants room for one where there is none
                std::vector<double>(n), std::vector<double>(n)};
  const lapack_int info = LAPACKE_dsytrd(LAPACK_COL_MAJOR, 'L', n, t.reflectors.data(), n,
                                         t.diagonal.data(), t.beside.data(), t.factors.data());
  CheckInfo(info, "dsytrd", a.view());
  return t;
}

// Eigenvectors of t as rows [n, n], eigenvalues ascending, orthonormal to the accuracy of float.
std::vector<float> VectorsOf(const Tridiagonal& t, ConstMatrixD a) {
  const auto n = static_cast<lapack_int>(t.diagonal.size());
  double largest = 0.0;  // the vectors do not depend on t's scale, float's range does
  for (lapack_int i = 0; i < n; ++i) {
    largest = std::max({largest, std::abs(t.diagonal[i]), std::abs(t.beside[i])});
  }
  const auto scaled = [&](const std::vector<double>& values) {
    std::vector<float> result;
    for (const double value : values) {
      result.push_back(static_cast<float>(largest > 0.0 ? value / largest : 0.0));
    }
    return result;
  };
  std::vector<float> diagonal = scaled(t.diagonal);
  std::vector<float> beside = scaled(t.beside);
  std::vector<float> rows(static_cast<size_t>(n) * n);
  const lapack_int info =
      LAPACKE_sstedc(LAPACK_COL_MAJOR, 'I', n, diagonal.data(), beside.data(), rows.data(), n);
  CheckInfo(info, "sstedc", a);
  return rows;
}

// v^T t v / v^T v in double. Its error is quadratic in that of the vector.
double RayleighQuotient(const Tridiagonal& t, const float* v) {
  const auto n = std::ssize(t.diagonal);
  double energy = 0.0;
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double v_i = v[i];
    energy += t.diagonal[i] * v_i * v_i;
    if (i + 1 < n) energy += 2.0 * t.beside[i] * v_i * v[i + 1];
    squares += v_i * v_i;
  }
  return energy / squares;
}

// Turns the eigenvectors of t, rows [n, n], into those of a.
void ToVectorsOfMatrix(const Tridiagonal& t, ConstMatrixD a, std::vector<float>& rows) {
  const auto n = static_cast<lapack_int>(t.diagonal.size());
  const std::vector<float> reflectors(t.reflectors.begin(), t.reflectors.end());
  const std::vector<float> factors(t.factors.begin(), t.factors.end());
  // LAPACK blocks of 32 columns, at most 64, and their triangular factor beside them: sormtr asks
  // for less than its own sormqr needs, which then goes column by column.
  std::vector<float> work(64 * (static_cast<size_t>(n) + 65));
  const lapack_int info = LAPACKE_sormtr_work(LAPACK_COL_MAJOR, 'L', 'L', 'N', n, n,
                                              reflectors.data(), n, factors.data(), rows.data(), n,
                                              work.data(), static_cast<lapack_int>(work.size()));
  CheckInfo(info, "sormtr", a);
}

class LapackSvd : public Svd {
 public:
  [[nodiscard]] SvdBackend backend() const override { return SvdBackend::kLapack; }

 private:
  [[nodiscard]] SvdResult DoDecompose(ConstMatrixD a) const override {
    Matrix copy = Copy(a);  // dgesdd destroys its input
    const int64_t k = std::min(a.rows, a.cols);
    SvdResult result;
    result.u = Matrix(a.rows, k);
    result.s.resize(k);
    result.vt = Matrix(k, a.cols);
    const lapack_int info = LAPACKE_dgesdd(
        LAPACK_ROW_MAJOR, 'S', static_cast<lapack_int>(a.rows), static_cast<lapack_int>(a.cols),
        copy.data.data(), static_cast<lapack_int>(a.cols), result.s.data(), result.u.data.data(),
        static_cast<lapack_int>(k), result.vt.data.data(), static_cast<lapack_int>(a.cols));
    CheckInfo(info, "dgesdd", a);
    return result;
  }

  [[nodiscard]] EigenResult DoDecomposeSymmetric(ConstMatrixD a) const override {
    // A symmetric matrix reads the same by columns, and LAPACKE need not transpose it; row i of
    // `rows` is then the i-th eigenvector, values ascending.
    Matrix rows = Copy(a);
    std::vector<double> ascending(a.rows);
    const lapack_int info =
        LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', static_cast<lapack_int>(a.rows),
                       rows.data.data(), static_cast<lapack_int>(a.rows), ascending.data());
    CheckInfo(info, "dsyevd", a);
    EigenResult result;
    result.values.assign(ascending.rbegin(), ascending.rend());
    for (int64_t i = 0; i < a.rows / 2; ++i) {
      std::swap_ranges(rows.data.begin() + i * a.rows, rows.data.begin() + (i + 1) * a.rows,
                       rows.data.begin() + (a.rows - 1 - i) * a.rows);
    }
    result.vectors = Transpose(rows.view());
    return result;
  }

  // The tridiagonal form and the eigenvalues are in double, the vectors in float, whose accuracy
  // the Gram matrix has. It takes two thirds of dsyevd's time.
  [[nodiscard]] EigenResult DoDecomposeGram(const Matrix& gram) const override {
    const auto n = static_cast<lapack_int>(gram.rows);
    const Tridiagonal t = Tridiagonalise(gram);
    std::vector<float> rows = VectorsOf(t, gram.view());
    std::vector<double> values;
    for (int64_t i = 0; i < n; ++i) values.push_back(RayleighQuotient(t, rows.data() + i * n));
    ToVectorsOfMatrix(t, gram.view(), rows);
    // Values that are equal in float may have changed their order.
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t one, int64_t other) { return values[one] > values[other]; });
    EigenResult result;
    result.vectors = Matrix(n, n);
    for (const int64_t i : order) result.values.push_back(values[i]);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < n; ++c) result.vectors(r, c) = rows[order[c] * n + r];
    }
    return result;
  }
};

}  // namespace

std::unique_ptr<Svd> CreateLapackSvd() { return std::make_unique<LapackSvd>(); }

}  // namespace kvc::linalg::detail
