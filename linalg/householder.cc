#include "linalg/householder.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"
#include "linalg/principal_axes.h"
#include "linalg/products.h"

namespace kvc::linalg {
namespace {

// row = row H_1 .. H_r, or with `backwards` row H_r .. H_1.
void Reflect(ConstMatrixF reflectors, bool backwards, float* row) {
  for (int64_t i = 0; i < reflectors.rows; ++i) {
    const float* u = reflectors.row(backwards ? reflectors.rows - 1 - i : i);
    float dot = 0.0F;
    for (int64_t d = 0; d < reflectors.cols; ++d) dot += row[d] * u[d];
    for (int64_t d = 0; d < reflectors.cols; ++d) row[d] -= dot * u[d];
  }
}

// Rows of width D, their first r coordinates, and the reflectors must fit together.
void CheckReflected(ConstMatrixF rows, ConstMatrixF coordinates, ConstMatrixF reflectors) {
  KVC_CHECK(reflectors.cols == rows.cols && coordinates.cols <= rows.cols &&
                coordinates.rows == rows.rows,
            kBadShape, "reflectors: expected rows [{}, {}] and as many coordinates, got [{}, {}]",
            rows.rows, reflectors.cols, coordinates.rows, coordinates.cols);
}

}  // namespace

void ToReflected(ConstMatrixF x, ConstMatrixF reflectors, MatrixF y) {
  CheckReflected(x, y, reflectors);
  thread_local std::vector<float> row;  // kept: a decode step allocates nothing
  row.resize(static_cast<size_t>(x.cols));
  for (int64_t t = 0; t < x.rows; ++t) {
    std::copy_n(x.row(t), x.cols, row.data());
    Reflect(reflectors, false, row.data());
    std::copy_n(row.data(), y.cols, y.row(t));
  }
}

void FromReflected(ConstMatrixF y, ConstMatrixF reflectors, MatrixF x) {
  CheckReflected(x, y, reflectors);
  for (int64_t t = 0; t < x.rows; ++t) {
    std::fill(std::copy_n(y.row(t), y.cols, x.row(t)), x.row(t) + x.cols, 0.0F);
    Reflect(reflectors, true, x.row(t));
  }
}

void FindReflectors(ConstMatrixF x, MatrixF reflectors) {
  const int64_t width = reflectors.cols;
  const int64_t count = reflectors.rows;
  std::vector<float> columns(static_cast<size_t>(width * x.rows));
  const MatrixF transposed(columns.data(), width, x.rows);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t d = 0; d < width; ++d) transposed(d, t) = x(t, d);
  }
  std::vector<float> storage(static_cast<size_t>(width * width));
  const MatrixF gram(storage.data(), width, width);
  GemmNT(1.0F, transposed, transposed, false, gram);
  PrincipalAxes(gram, reflectors);
  // Householder's QR of the axes as columns: H_r .. H_1 takes axis j to +-e_j. Row j becomes u_j.
  for (int64_t j = 0; j < count; ++j) {
    float* u = reflectors.row(j);
    Reflect({reflectors.data, j, width}, false, u);
    std::fill_n(u, j, 0.0F);
    double square = 0.0;
    for (int64_t d = j; d < width; ++d) square += static_cast<double>(u[d]) * u[d];
    const double length = std::sqrt(square);
    u[j] += static_cast<float>(u[j] < 0.0F ? -length : length);
    // |u|^2 = 2, so that H = I - u^T u.
    square = 0.0;
    for (int64_t d = j; d < width; ++d) square += static_cast<double>(u[d]) * u[d];
    const double scale = std::sqrt(2.0 / square);
    for (int64_t d = j; d < width; ++d) u[d] = static_cast<float>(scale * u[d]);
  }
}

}  // namespace kvc::linalg
