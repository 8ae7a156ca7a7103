#include "export/onnx/unit_rows.h"

#include <algorithm>
#include <numeric>

#include <Eigen/LU>
#include <Eigen/QR>

#include "core/base/error.h"

namespace kvc::onnx_export {
namespace {

// Smallest part of a row outside the span of the chosen ones, relative to the first chosen row; a
// smaller part cannot be distinguished from rounding in float.
constexpr double kDependent = 1e-4;

using Stored = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                          Eigen::Unaligned,
                          Eigen::OuterStride<>>;

// Changes one group: latent [R, E], and its columns of the rebuild [rows, R].
void MakeGroup(Stored latent, Stored rebuild) {
  const Eigen::Index rank = latent.rows();
  const Eigen::MatrixXd b = rebuild.cast<double>();
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(b.transpose());
  qr.setThreshold(kDependent);
  if (qr.rank() < rank) return;
  const auto& order = qr.colsPermutation().indices();
  Eigen::MatrixXd m(rank, rank);
  for (Eigen::Index i = 0; i < rank; ++i) m.row(i) = b.row(order[i]);
  // X M = B
  Eigen::MatrixXd made = m.transpose().partialPivLu().solve(b.transpose()).transpose();
  for (Eigen::Index i = 0; i < rank; ++i) {  // what rounding left of them
    made.row(order[i]) = Eigen::RowVectorXd::Unit(rank, i);
  }
  rebuild = made.cast<float>();
  latent = (m * latent.cast<double>()).cast<float>();
}

}  // namespace

void MakeUnitRows(std::span<const int64_t> ranks, LatentFactors& factors) {
  const int64_t groups = std::ssize(ranks);
  const int64_t sum = std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
  const int64_t stride = groups == 0 ? 0 : *std::max_element(ranks.begin(), ranks.end());
  KVC_CHECK(stride > 0 && std::ssize(factors.latent) % sum == 0 &&
                std::ssize(factors.rebuild) % (stride * groups) == 0,
            kInternal, "latent factors: expected whole rows for {} groups, got {} and {} elements",
            groups, factors.latent.size(), factors.rebuild.size());
  const int64_t width = std::ssize(factors.latent) / sum;
  const int64_t rows = std::ssize(factors.rebuild) / (stride * groups);  // of a group
  float* latent = factors.latent.data();
  float* rebuild = factors.rebuild.data();
  for (const int64_t rank : ranks) {
    MakeGroup(Stored(latent, rank, width, Eigen::OuterStride<>(width)),
              Stored(rebuild, rows, rank, Eigen::OuterStride<>(stride)));
    latent += rank * width;
    rebuild += rows * stride;
  }
}

}  // namespace kvc::onnx_export
