#include "factorize/matrix.h"

#include <Eigen/Core>

namespace kvc::factorize {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>;

Strided Map(ConstMatrixD a) { return {a.data, a.rows, a.cols, Eigen::OuterStride<>(a.stride)}; }

Eigen::Map<RowMajor> Map(Matrix& a) { return {a.data.data(), a.rows, a.cols}; }

}  // namespace

Matrix Identity(int64_t size) {
  Matrix identity(size, size);
  for (int64_t i = 0; i < size; ++i) identity(i, i) = 1.0;
  return identity;
}

Matrix Transpose(ConstMatrixD a) {
  Matrix result(a.cols, a.rows);
  Map(result) = Map(a).transpose();
  return result;
}

Matrix Multiply(ConstMatrixD a, ConstMatrixD b) {
  Matrix result(a.rows, b.cols);
  Map(result).noalias() = Map(a) * Map(b);
  return result;
}

Matrix MultiplyTransposed(ConstMatrixD a, ConstMatrixD b) {
  Matrix result(a.rows, b.rows);
  Map(result).noalias() = Map(a) * Map(b).transpose();
  return result;
}

double Energy(ConstMatrixD a, ConstMatrixD g) {
  return (Map(a) * Map(g)).cwiseProduct(Map(a)).sum();
}

}  // namespace kvc::factorize
