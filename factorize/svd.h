#pragma once
// Singular values and symmetric eigenvectors behind one interface, so that a backend is one file:
// Eigen (always there), LAPACK (OpenBLAS's, the default), cuSOLVER (its place; needs a device).

#include <memory>
#include <string>
#include <vector>

#include "core/view.h"
#include "factorize/matrix.h"

namespace kvc::factorize {

enum class SvdBackend { kEigen, kLapack, kCuSolver };
[[nodiscard]] std::string SvdBackendName(SvdBackend backend);

// a = u diag(s) vt with k = min(m, n); s descending.
struct SvdResult {
  Matrix u;               // [m, k], orthonormal columns
  std::vector<double> s;  // [k], >= 0
  Matrix vt;              // [k, n], orthonormal rows
};

// a = vectors diag(values) vectors^T; values descending.
struct EigenResult {
  std::vector<double> values;  // [n]
  Matrix vectors;              // [n, n], columns
};

class Svd {
 public:
  // Throws kDevice when the backend is not in this build.
  static std::unique_ptr<Svd> Create(SvdBackend backend);
  virtual ~Svd() = default;
  [[nodiscard]] virtual SvdBackend backend() const = 0;
  // Both throw kNumeric when `a` holds a NaN or infinity, or without convergence (naming shape and
  // the library's status), kBadShape when empty or, for the second, not square. Signs are fixed:
  // the largest component of each left vector (lowest index of ties) is positive.
  [[nodiscard]] SvdResult Decompose(ConstMatrixD a) const;
  [[nodiscard]] EigenResult DecomposeSymmetric(ConstMatrixD a) const;

 private:
  virtual SvdResult DoDecompose(ConstMatrixD a) const = 0;
  virtual EigenResult DoDecomposeSymmetric(ConstMatrixD a) const = 0;
};

namespace detail {
std::unique_ptr<Svd> CreateEigenSvd();
std::unique_ptr<Svd> CreateLapackSvd();
}  // namespace detail

}  // namespace kvc::factorize
