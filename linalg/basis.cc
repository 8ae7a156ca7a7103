#include "linalg/basis.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "linalg/products.h"

namespace kvc::linalg {
namespace {

// `rows` [T, D] and `coordinates` [T, r] must fit the basis.
void CheckBasis(ConstMatrixF rows, ConstMatrixF coordinates, const BasisView& basis) {
  const int64_t full = rows.cols;
  const int64_t width = coordinates.cols;
  KVC_CHECK(basis.forward.rows == full && basis.forward.cols >= width && basis.back.rows == full &&
                basis.back.cols >= width,
            kBadShape, "basis: expected one of {} rows and at least {} columns, got [{}, {}]", full,
            width, basis.forward.rows, basis.forward.cols);
  KVC_CHECK(rows.rows == coordinates.rows, kBadShape,
            "basis: expected coordinates of as many rows, {}, got {}", rows.rows, coordinates.rows);
}

}  // namespace

void ToCoordinates(ConstMatrixF x, const BasisView& basis, MatrixF y) {
  CheckBasis(x, y, basis);
  // A decode step's single rows take scratch that is kept; a prompt's many would keep too much.
  thread_local std::vector<float> kept;
  std::vector<float> many;
  std::vector<float>& storage = x.rows == 1 ? kept : many;
  storage.resize(static_cast<size_t>(x.rows * x.cols));
  const MatrixF centred(storage.data(), x.rows, x.cols);  // [T, D]
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t d = 0; d < x.cols; ++d) {
      centred(t, d) = x(t, d) - (basis.mean == nullptr ? 0.0F : basis.mean[d]);
    }
  }
  GemmNN(centred, basis.forward.ColRange(0, y.cols), false, y);
}

void FromCoordinates(ConstMatrixF y, const BasisView& basis, MatrixF x) {
  CheckBasis(x, y, basis);
  for (int64_t t = 0; t < x.rows; ++t) {
    if (basis.mean != nullptr) {
      std::copy_n(basis.mean, x.cols, x.row(t));
    } else {
      std::fill_n(x.row(t), x.cols, 0.0F);
    }
  }
  GemmNT(1.0F, y, basis.back.ColRange(0, y.cols), true, x);
}

void ApproximateRows(ConstMatrixF x, const BasisView& basis, int64_t width, MatrixF approximation) {
  KVC_CHECK(width >= 0 && width <= x.cols, kBadShape, "basis: expected a width of 0 to {}, got {}",
            x.cols, width);
  std::vector<float> storage(static_cast<size_t>(x.rows * width));
  const MatrixF coordinates(storage.data(), x.rows, width);  // [T, r]
  ToCoordinates(x, basis, coordinates);
  FromCoordinates(coordinates, basis, approximation);
}

}  // namespace kvc::linalg
