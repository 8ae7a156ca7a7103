#include "factorize/key_basis.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace kvc::factorize {
namespace {

constexpr double kSmallestScale = 1e-6;        // of the largest; see ScaledBasis
constexpr double kSmallestEigenvalue = 1e-12;  // of the trace; see LogitBasis
constexpr double kRidge = 1e-3;                // of the mean eigenvalue; see BalancedLogitBasis
constexpr double kSmallestBalance = 1e-9;      // of the largest singular value

// I - rebuild_r reduce_r, [m, m]
linalg::Matrix Residual(const KeyBasis& basis, int64_t rank) {
  linalg::Matrix residual = linalg::Identity(basis.rebuild.rows);
  const linalg::Matrix projection = linalg::Multiply(basis.rebuild.view().ColRange(0, rank),
                                                     basis.reduce.view().RowRange(0, rank));
  for (size_t i = 0; i < residual.data.size(); ++i) residual.data[i] -= projection.data[i];
  return residual;
}

double Trace(ConstMatrixD a, ConstMatrixD b) {
  double sum = 0.0;  // tr(a b) of symmetric a, b
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) sum += a(r, c) * b(r, c);
  }
  return sum;
}

linalg::Matrix Identity(int64_t size) {
  linalg::Matrix identity(size, size);
  for (int64_t d = 0; d < size; ++d) identity(d, d) = 1.0;
  return identity;
}

// A basis for keys that are all alike, of which every one is as good.
KeyBasis AnyBasis(int64_t size) {
  KeyBasis basis;
  basis.spectrum.assign(static_cast<size_t>(size), 0.0);
  basis.reduce = Identity(size);
  basis.rebuild = Identity(size);
  return basis;
}

}  // namespace

linalg::Matrix Recompose(const linalg::EigenResult& eigen, std::span<const double> values) {
  linalg::Matrix scaled = eigen.vectors;
  for (int64_t r = 0; r < scaled.rows; ++r) {
    for (int64_t c = 0; c < scaled.cols; ++c) scaled(r, c) *= values[c];
  }
  return linalg::MultiplyTransposed(scaled.view(), eigen.vectors.view());
}

KeyBasis ScaledBasis(const linalg::Matrix& gram,
                     std::span<const double> scale,
                     const linalg::Svd& svd) {
  const int64_t m = gram.rows;
  KVC_CHECK(static_cast<int64_t>(scale.size()) == m, kInternal, "one scale for each key dimension");
  const double largest = *std::max_element(scale.begin(), scale.end());
  std::vector<double> s(scale.begin(), scale.end());
  // Queries of zeros ask for nothing: every dimension counts alike.
  for (double& value : s) {
    value = largest > 0.0 ? std::max(value, kSmallestScale * largest) : 1.0;
  }

  linalg::Matrix scaled = gram;
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < m; ++c) scaled(r, c) *= s[r] * s[c];
  }
  KeyBasis basis = BasisOf(svd.DecomposeSymmetric(scaled.view()));
  for (int64_t d = 0; d < m; ++d) {
    for (int64_t i = 0; i < m; ++i) {
      basis.reduce(i, d) *= s[d];
      basis.rebuild(d, i) /= s[d];
    }
  }
  return basis;
}

KeyBasis BasisOf(const linalg::EigenResult& eigen) {
  KeyBasis basis;
  basis.spectrum = eigen.values;
  for (double& value : basis.spectrum) value = std::max(value, 0.0);
  basis.reduce = linalg::Transpose(eigen.vectors.view());
  basis.rebuild = eigen.vectors;
  return basis;
}

KeyBasis LogitBasis(const linalg::Matrix& key_gram,
                    const linalg::Matrix& query_gram,
                    const linalg::Svd& svd) {
  const linalg::EigenResult keys = svd.DecomposeSymmetric(key_gram.view());
  const linalg::EigenResult queries = svd.DecomposeSymmetric(query_gram.view());
  double trace = 0.0;
  for (const double value : keys.values) trace += std::max(value, 0.0);
  if (trace == 0.0) return AnyBasis(key_gram.rows);
  std::vector<double> root, inverse_root, query_root;
  for (const double value : keys.values) {
    const bool there = value > kSmallestEigenvalue * trace;
    root.push_back(there ? std::sqrt(value) : 0.0);
    inverse_root.push_back(there ? 1.0 / std::sqrt(value) : 0.0);
  }
  for (const double value : queries.values) query_root.push_back(std::sqrt(std::max(value, 0.0)));

  const linalg::Matrix key_root = Recompose(keys, root);
  const linalg::SvdResult product = svd.Decompose(
      linalg::Multiply(key_root.view(), Recompose(queries, query_root).view()).view());
  KeyBasis basis;
  basis.rebuild = linalg::Multiply(key_root.view(), product.u.view());
  basis.reduce = linalg::Transpose(
      linalg::Multiply(Recompose(keys, inverse_root).view(), product.u.view()).view());
  for (const double s : product.s) basis.spectrum.push_back(s * s);
  return basis;
}

KeyBasis BalancedLogitBasis(const linalg::Matrix& key_gram,
                            const linalg::Matrix& query_gram,
                            const linalg::Svd& svd) {
  linalg::Matrix keys = key_gram;
  double trace = 0.0;
  for (int64_t d = 0; d < keys.rows; ++d) trace += keys(d, d);
  for (int64_t d = 0; d < keys.rows; ++d) {
    keys(d, d) += kRidge * trace / static_cast<double>(keys.rows);
  }
  KeyBasis basis = LogitBasis(keys, query_gram, svd);
  if (basis.spectrum[0] == 0.0) {  // nothing is asked: the axes of the keys alone
    basis = LogitBasis(keys, Identity(keys.rows), svd);
    if (basis.spectrum[0] == 0.0) return basis;
  }
  const double largest = std::sqrt(basis.spectrum[0]);
  for (int64_t i = 0; i < keys.rows; ++i) {
    const double s = std::max(std::sqrt(basis.spectrum[i]), kSmallestBalance * largest);
    const double root = std::sqrt(s);
    for (int64_t d = 0; d < keys.rows; ++d) {
      basis.reduce(i, d) *= root;
      basis.rebuild(d, i) /= root;
    }
  }
  return basis;
}

KeyBasis MetricBasis(const linalg::Matrix& gram,
                     const linalg::Matrix& metric,
                     double ridge,
                     const linalg::Svd& svd) {
  const linalg::EigenResult eigen = svd.DecomposeSymmetric(metric.view());
  double trace = 0.0;
  for (const double value : eigen.values) trace += std::max(value, 0.0);
  KVC_CHECK(trace > 0.0 && ridge > 0.0, kInternal, "basis: expected a metric that is not zero");
  std::vector<double> root, inverse_root;
  for (const double value : eigen.values) {
    const double raised =
        std::max(value, 0.0) + ridge * trace / static_cast<double>(eigen.values.size());
    root.push_back(std::sqrt(raised));
    inverse_root.push_back(1.0 / std::sqrt(raised));
  }
  const linalg::Matrix m_root = Recompose(eigen, root);
  const linalg::Matrix weighed = linalg::Multiply(m_root.view(), gram.view());
  KeyBasis basis =
      BasisOf(svd.DecomposeSymmetric(linalg::Multiply(weighed.view(), m_root.view()).view()));
  basis.reduce = linalg::Multiply(basis.reduce.view(), m_root.view());
  basis.rebuild = linalg::Multiply(Recompose(eigen, inverse_root).view(), basis.rebuild.view());
  return basis;
}

PairBasis SelectPairs(const linalg::Matrix& key_gram, const linalg::Matrix& query_gram) {
  const int64_t half = key_gram.rows / 2;
  linalg::Matrix loss(half, half);  // M
  for (int64_t r = 0; r < key_gram.rows; ++r) {
    for (int64_t c = 0; c < key_gram.rows; ++c) {
      loss(r % half, c % half) += key_gram(r, c) * query_gram(r, c);
    }
  }
  std::vector<int64_t> left(half);
  std::iota(left.begin(), left.end(), int64_t{0});
  std::vector<double> added(half);  // by dropping each of the pairs that are left
  for (int64_t p = 0; p < half; ++p) added[p] = loss(p, p);
  PairBasis result;
  result.pairs.resize(half);
  result.basis.spectrum.resize(2 * half);
  for (int64_t i = half - 1; i >= 0; --i) {
    const auto least = std::min_element(left.begin(), left.end(),
                                        [&](int64_t a, int64_t b) { return added[a] < added[b]; });
    const int64_t dropped = *least;
    left.erase(least);
    result.pairs[i] = dropped;
    // Correlated pairs can compensate each other's loss; a curve of losses may not fall.
    result.basis.spectrum[2 * i] = std::max(added[dropped], 0.0) / 2;
    result.basis.spectrum[2 * i + 1] = result.basis.spectrum[2 * i];
    for (const int64_t p : left) added[p] += 2 * loss(p, dropped);
  }
  result.basis.reduce = linalg::Matrix(2 * half, 2 * half);
  for (int64_t i = 0; i < half; ++i) {
    result.basis.reduce(2 * i, result.pairs[i]) = 1.0;
    result.basis.reduce(2 * i + 1, result.pairs[i] + half) = 1.0;
  }
  result.basis.rebuild = linalg::Transpose(result.basis.reduce.view());
  return result;
}

double RelativeError(const KeyBasis& basis,
                     int64_t rank,
                     const linalg::Matrix& gram,
                     std::span<const double> scale,
                     int64_t begin,
                     int64_t count) {
  // Rows [begin, begin + count) of I - P_r, each times its scale.
  linalg::Matrix residual =
      linalg::Multiply(basis.rebuild.view().RowRange(begin, count).ColRange(0, rank),
                       basis.reduce.view().RowRange(0, rank));  // [count, m]
  double all = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double s = scale[begin + i];
    for (int64_t d = 0; d < gram.rows; ++d) residual(i, d) *= -s;
    residual(i, begin + i) += s;
    all += s * s * gram(begin + i, begin + i);
  }
  const double lost = linalg::Energy(residual.view(), gram.view());
  return all > 0.0 ? std::sqrt(std::max(lost, 0.0) / all) : 0.0;
}

double RelativeLogitError(const KeyBasis& basis,
                          int64_t rank,
                          const linalg::Matrix& key_gram,
                          const linalg::Matrix& query_gram) {
  const linalg::Matrix residual = Residual(basis, rank);
  const linalg::Matrix covariance = linalg::MultiplyTransposed(
      linalg::Multiply(residual.view(), key_gram.view()).view(), residual.view());
  const double all = Trace(query_gram.view(), key_gram.view());
  const double lost = Trace(query_gram.view(), covariance.view());
  return all > 0.0 ? std::sqrt(std::max(lost, 0.0) / all) : 0.0;
}

}  // namespace kvc::factorize
