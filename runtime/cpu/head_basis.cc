#include "runtime/cpu/head_basis.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "linalg/basis.h"
#include "linalg/principal_axes.h"
#include "linalg/products.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
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

// The [width, width] corner of head `head`'s block of a basis [G, D, D].
ConstMatrixF Corner(const std::vector<float>& basis, int64_t full, int64_t head, int64_t width) {
  return {basis.data() + head * full * full, width, width, full};
}

MatrixF Reflectors(const LayerCoordinates& coordinates, const BasisPlace& place) {
  return {HostMemory::Floats(coordinates.reflectors()) + place.offset, place.rows, place.width};
}

}  // namespace

void HeadBasis::ToCoordinates(ConstMatrixF x, MatrixF y) const {
  // A decode step's single rows take scratch that is kept; a prompt's many would keep too much.
  thread_local std::vector<float> kept;
  std::vector<float> many;
  std::vector<float>& storage = x.rows == 1 ? kept : many;
  storage.resize(static_cast<size_t>(x.rows * width_));
  const MatrixF rows(storage.data(), x.rows, width_);
  for (int64_t t = 0; t < x.rows; ++t) {
    std::copy_n(x.row(t), width_, rows.row(t));
    for (int64_t d = 0; mean_ != nullptr && d < width_; ++d) rows(t, d) -= mean_[d];
    if (reflectors_.cols == 0) continue;
    Reflect(reflectors_, false, rows.row(t));
    std::copy_n(rows.row(t), y.cols, y.row(t));
  }
  if (reflectors_.cols == 0) linalg::GemmNN(rows, forward_.ColRange(0, y.cols), false, y);
}

void HeadBasis::FromCoordinates(ConstMatrixF y, MatrixF x) const {
  if (reflectors_.cols == 0) {
    linalg::FromCoordinates(y, {forward_, back_, mean_}, x);
    return;
  }
  for (int64_t t = 0; t < x.rows; ++t) {
    std::fill(std::copy_n(y.row(t), y.cols, x.row(t)), x.row(t) + width_, 0.0F);
    Reflect(reflectors_, true, x.row(t));
  }
}

void HeadBasis::ToQueries(ConstMatrixF x, MatrixF y) const {
  if (reflectors_.cols == 0) {
    linalg::GemmNN(x, back_, false, y);
    return;
  }
  for (int64_t t = 0; t < x.rows; ++t) {
    std::copy_n(x.row(t), width_, y.row(t));
    Reflect(reflectors_, false, y.row(t));
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
  linalg::GemmNT(1.0F, transposed, transposed, false, gram);
  linalg::PrincipalAxes(gram, reflectors);
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

HeadBasis KeyBasis(const LayerCoordinates& coordinates, int64_t head) {
  const BasisPlace& place = coordinates.keys(head);
  if (place.width == 0) return {};
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return HeadBasis(Reflectors(coordinates, place));
  return {Corner(bases->key, bases->key_width, head, place.width),
          Corner(bases->query, bases->key_width, head, place.width),
          bases->key_mean.data() + head * bases->key_width};
}

HeadBasis ValueBasis(const LayerCoordinates& coordinates, int64_t head) {
  const BasisPlace& place = coordinates.values(head);
  const LayerBases* bases = coordinates.calibrated();
  if (bases == nullptr) return HeadBasis(Reflectors(coordinates, place));
  return {Corner(bases->value, bases->value_width, head, place.width),
          Corner(bases->output, bases->value_width, head, place.width),
          bases->value_mean.data() + head * bases->value_width};
}

void SetHead(const LayerCoordinates& coordinates,
             int64_t head,
             ConstMatrixF keys,
             ConstMatrixF values) {
  const auto set = [&](const BasisPlace& place, ConstMatrixF rows) {
    if (place.rows > 0) FindReflectors(rows, Reflectors(coordinates, place));
  };
  set(coordinates.keys(head), keys);
  set(coordinates.values(head), values);
}

}  // namespace kvc::runtime
