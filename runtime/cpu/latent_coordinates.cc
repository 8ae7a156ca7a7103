#include "runtime/cpu/latent_coordinates.h"

#include <algorithm>

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

// Writes B query [D, R] and b + B mean [D] of one head; sums in double.
void Fold(const kernels::KeyRebuild& head,
          const LayerBases& bases,
          int64_t group,
          float* matrix,
          float* offset) {
  const ConstMatrixF& b = head.rebuild;
  const int64_t width = bases.key_width;
  const float* query = bases.query.data() + group * width * width;
  const float* mean = bases.key_mean.data() + group * width;
  std::vector<double> row(static_cast<size_t>(b.cols));
  for (int64_t d = 0; d < b.rows; ++d) {
    std::ranges::fill(row, 0.0);
    double sum = head.bias != nullptr ? head.bias[d] : 0.0;
    for (int64_t r = 0; r < b.cols; ++r) {
      const double factor = b(d, r);
      for (int64_t i = 0; i < b.cols; ++i) row[i] += factor * query[r * width + i];
      sum += factor * mean[r];
    }
    std::ranges::copy(row, matrix + d * b.cols);
    offset[d] = static_cast<float>(sum);
  }
}

}  // namespace

LatentRebuilds RebuildsFromCoordinates(std::span<const kernels::KeyRebuild> heads,
                                       const LayerBases& bases,
                                       int64_t layer) {
  LatentRebuilds result;
  result.heads.assign(heads.begin(), heads.end());
  size_t elements = 0;
  size_t rows = 0;
  for (const kernels::KeyRebuild& head : heads) {
    KVC_CHECK(head.units.column.empty(), kUnsupported,
              "layer {}: tiers in few bits: expected latents as the profiled checkpoint has them, "
              "got some that this bundle's export rewrote to save products; export it with "
              "--dtype bf16, or with tiers",
              layer);
    elements += static_cast<size_t>(head.rebuild.rows * head.rebuild.cols);
    rows += static_cast<size_t>(head.rebuild.rows);
  }
  result.matrices.resize(elements);
  result.offsets.resize(rows);
  float* matrix = result.matrices.data();
  float* offset = result.offsets.data();
  for (int64_t g = 0; g < std::ssize(result.heads); ++g) {
    kernels::KeyRebuild& head = result.heads[g];
    const ConstMatrixF b = head.rebuild;
    Fold(head, bases, bases.KeyGroupOf(g), matrix, offset);
    head.rebuild = {matrix, b.rows, b.cols, b.cols};
    head.bias = offset;
    matrix += b.rows * b.cols;
    offset += b.rows;
  }
  return result;
}

}  // namespace kvc::runtime
