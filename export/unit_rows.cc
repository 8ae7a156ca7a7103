#include "export/unit_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace kvc::onnx_export {
namespace {

// A row whose part outside the span of the chosen ones is smaller than this, relative to the first
// chosen row, cannot be told from rounding in float.
constexpr double kDependent = 1e-4;

// A dense matrix [rows, cols].
struct Matrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<double> data;
  Matrix(int64_t num_rows, int64_t num_cols)
      : rows(num_rows), cols(num_cols), data(static_cast<size_t>(num_rows * num_cols), 0.0) {}
  [[nodiscard]] double* row(int64_t r) { return data.data() + r * cols; }
  [[nodiscard]] const double* row(int64_t r) const { return data.data() + r * cols; }
};

double Dot(const double* a, const double* b, int64_t count) {
  return std::inner_product(a, a + count, b, 0.0);
}

// target -= factor * source
void Subtract(double factor, const double* source, int64_t count, double* target) {
  for (int64_t i = 0; i < count; ++i) target[i] -= factor * source[i];
}

// As many rows of b as it has columns, each the one with most outside the span of those before;
// fewer when the rest depends on them.
std::vector<int64_t> ChooseRows(Matrix b) {
  std::vector<int64_t> chosen;
  std::vector<double> direction(static_cast<size_t>(b.cols));
  double first = 0.0;
  while (std::ssize(chosen) < b.cols) {
    int64_t best = -1;
    double most = 0.0;
    for (int64_t r = 0; r < b.rows; ++r) {
      const double left = Dot(b.row(r), b.row(r), b.cols);
      if (left > most) {
        most = left;
        best = r;
      }
    }
    const double length = std::sqrt(most);
    first = chosen.empty() ? length : first;
    if (best < 0 || !(length > kDependent * first)) break;
    chosen.push_back(best);
    std::transform(
        b.row(best), b.row(best) + b.cols, direction.begin(), [&](double x) { return x / length; });
    for (int64_t r = 0; r < b.rows; ++r) {
      Subtract(Dot(b.row(r), direction.data(), b.cols), direction.data(), b.cols, b.row(r));
    }
    std::fill_n(b.row(best), b.cols, 0.0);
  }
  return chosen;
}

// The inverse by Gauss-Jordan elimination with partial pivoting.
Matrix Inverse(Matrix m) {
  const int64_t n = m.rows;
  Matrix inverse(n, n);
  for (int64_t i = 0; i < n; ++i) inverse.row(i)[i] = 1.0;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r) {
      if (std::abs(m.row(r)[c]) > std::abs(m.row(pivot)[c])) pivot = r;
    }
    if (pivot != c) {
      std::swap_ranges(m.row(c), m.row(c) + n, m.row(pivot));
      std::swap_ranges(inverse.row(c), inverse.row(c) + n, inverse.row(pivot));
    }
    const double scale = 1.0 / m.row(c)[c];
    for (int64_t k = 0; k < n; ++k) {
      m.row(c)[k] *= scale;
      inverse.row(c)[k] *= scale;
    }
    for (int64_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double factor = m.row(r)[c];
      Subtract(factor, m.row(c), n, m.row(r));
      Subtract(factor, inverse.row(c), n, inverse.row(r));
    }
  }
  return inverse;
}

// out [a.rows, b.cols] = a b
Matrix Multiply(const Matrix& a, const Matrix& b) {
  Matrix out(a.rows, b.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t k = 0; k < a.cols; ++k) Subtract(-a.row(r)[k], b.row(k), b.cols, out.row(r));
  }
  return out;
}

Matrix CopyOf(const float* source, int64_t rows, int64_t cols, int64_t stride) {
  Matrix copy(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(source + r * stride, cols, copy.row(r));
  }
  return copy;
}

void CopyBack(const Matrix& source, int64_t stride, float* target) {
  for (int64_t r = 0; r < source.rows; ++r) {
    std::transform(source.row(r), source.row(r) + source.cols, target + r * stride, [](double x) {
      return static_cast<float>(x);
    });
  }
}

// One group: latent [rank, width], rebuild [rows, stride] of which the first `rank` columns count.
void MakeGroup(
    int64_t rank, int64_t width, int64_t rows, int64_t stride, float* latent, float* rebuild) {
  const Matrix b = CopyOf(rebuild, rows, rank, stride);
  const std::vector<int64_t> chosen = ChooseRows(b);
  if (std::ssize(chosen) < rank) return;
  Matrix m(rank, rank);
  for (int64_t i = 0; i < rank; ++i) {
    std::copy_n(b.row(chosen[static_cast<size_t>(i)]), rank, m.row(i));
  }
  Matrix made = Multiply(b, Inverse(m));
  for (int64_t i = 0; i < rank; ++i) {  // what rounding left of them
    double* row = made.row(chosen[static_cast<size_t>(i)]);
    std::fill_n(row, rank, 0.0);
    row[i] = 1.0;
  }
  CopyBack(made, stride, rebuild);
  CopyBack(Multiply(m, CopyOf(latent, rank, width, width)), width, latent);
}

}  // namespace

void MakeUnitRows(std::span<const int64_t> ranks, LatentFactors& factors) {
  const int64_t groups = std::ssize(ranks);
  const int64_t sum = std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
  const int64_t stride = groups == 0 ? 0 : *std::max_element(ranks.begin(), ranks.end());
  KVC_CHECK(stride > 0 && std::ssize(factors.latent) % sum == 0 &&
                std::ssize(factors.rebuild) % (stride * groups) == 0,
            kInternal,
            "latent factors: expected whole rows for ",
            groups,
            " groups, got ",
            factors.latent.size(),
            " and ",
            factors.rebuild.size(),
            " elements");
  const int64_t width = std::ssize(factors.latent) / sum;
  const int64_t rows = std::ssize(factors.rebuild) / (stride * groups);  // of a group
  float* latent = factors.latent.data();
  float* rebuild = factors.rebuild.data();
  for (const int64_t rank : ranks) {
    MakeGroup(rank, width, rows, stride, latent, rebuild);
    latent += rank * width;
    rebuild += rows * stride;
  }
}

}  // namespace kvc::onnx_export
