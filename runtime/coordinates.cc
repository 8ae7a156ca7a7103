#include "runtime/coordinates.h"

#include <algorithm>

#include "kernels/matmul.h"

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

}  // namespace

void HeadBasis::ToCoordinates(ConstMatrixF x, MatrixF y) const {
  std::vector<float> storage(static_cast<size_t>(x.rows * width_));
  const MatrixF rows(storage.data(), x.rows, width_);
  for (int64_t t = 0; t < x.rows; ++t) {
    std::copy_n(x.row(t), width_, rows.row(t));
    for (int64_t d = 0; mean_ != nullptr && d < width_; ++d) rows(t, d) -= mean_[d];
    if (reflectors_.cols == 0) continue;
    Reflect(reflectors_, false, rows.row(t));
    std::copy_n(rows.row(t), y.cols, y.row(t));
  }
  if (reflectors_.cols == 0) kernels::GemmNN(rows, forward_.ColRange(0, y.cols), false, y);
}

void HeadBasis::FromCoordinates(ConstMatrixF y, MatrixF x) const {
  for (int64_t t = 0; t < x.rows; ++t) {
    if (reflectors_.cols > 0) {
      std::fill(std::copy_n(y.row(t), y.cols, x.row(t)), x.row(t) + width_, 0.0F);
      Reflect(reflectors_, true, x.row(t));
    } else if (mean_ != nullptr) {
      std::copy_n(mean_, width_, x.row(t));
    } else {
      std::fill_n(x.row(t), width_, 0.0F);
    }
  }
  if (reflectors_.cols == 0) kernels::GemmNT(1.0F, y, back_.ColRange(0, y.cols), true, x);
}

void HeadBasis::ToQueries(ConstMatrixF x, MatrixF y) const {
  if (reflectors_.cols == 0) {
    kernels::GemmNN(x, back_, false, y);
    return;
  }
  for (int64_t t = 0; t < x.rows; ++t) {
    std::copy_n(x.row(t), width_, y.row(t));
    Reflect(reflectors_, false, y.row(t));
  }
}

LayerCoordinates::LayerCoordinates(const LayerBases& bases, const std::vector<CacheGroup>& groups)
    : keys_(static_cast<size_t>(bases.num_kv_heads)),
      values_(static_cast<size_t>(bases.num_kv_heads)) {
  for (const CacheGroup& group : groups) {
    for (const int64_t head : group.heads) {
      values_[head] = HeadBasis(Corner(bases.value, bases.value_width, head, group.value_width),
                                Corner(bases.output, bases.value_width, head, group.value_width),
                                bases.value_mean.data() + head * bases.value_width);
      if (group.keeps_positions) continue;
      keys_[head] = HeadBasis(Corner(bases.key, bases.key_width, head, group.key_width),
                              Corner(bases.query, bases.key_width, head, group.key_width),
                              bases.key_mean.data() + head * bases.key_width);
    }
  }
}

}  // namespace kvc::runtime
