#pragma once
// Singular values and symmetric eigenvectors behind one interface, so that a backend is one file:
// Eigen (always there), LAPACK (OpenBLAS's, the default), cuSOLVER (with -DKVC_CUDA=ON; needs a
// device).

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "linalg/matrix.h"

namespace kvc::linalg {

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

// gram = a a^T [n, n] of a block a [n, m], and its eigenvectors: left singular vectors of a, values
// the squares of its singular values (rounding can leave the smallest below zero).
struct GramResult {
  Matrix gram;
  EigenResult eigen;
};

class Svd {
 public:
  // `num_threads` (0: one per core): of DecomposeGrams. Throws kDevice when the backend is not in
  // this build, or has no device.
  static std::unique_ptr<Svd> Create(SvdBackend backend, int num_threads = 1);
  virtual ~Svd();
  [[nodiscard]] virtual SvdBackend backend() const = 0;
  // Both throw kNumeric when `a` holds a NaN or infinity, or without convergence (naming shape and
  // the library's status), kBadShape when empty or, for the second, not square. Signs are fixed:
  // the largest component of each left vector (lowest index of ties) is positive.
  [[nodiscard]] SvdResult Decompose(ConstMatrixD a) const;
  [[nodiscard]] EigenResult DecomposeSymmetric(ConstMatrixD a) const;
  // Principal directions of many blocks a [n, m], m usually far above n, without their SVD: n may
  // differ from block to block. On the CPU one block per thread. Products in float over slices of
  // kGramSlice columns, slices summed in double: a value is off by about 1e-6 of the largest one,
  // so a singular value s by 1e-6 s_max^2 / (2 s). LAPACK's vectors are float's: orthonormal within
  // about 1e-6, turned by about 1e-7 of the largest value over the gap to the next; their values
  // are theirs in double. Same failures and signs as the others; the result does not depend on the
  // number of threads.
  [[nodiscard]] std::vector<GramResult> DecomposeGrams(std::span<const ConstMatrixF> blocks) const;

 protected:
  Svd();

 private:
  virtual SvdResult DoDecompose(ConstMatrixD a) const = 0;
  virtual EigenResult DoDecomposeSymmetric(ConstMatrixD a) const = 0;
  // Every block on its own, through DoDecomposeGram, which is DoDecomposeSymmetric unless a backend
  // has one of its own.
  virtual std::vector<GramResult> DoDecomposeGrams(std::span<const ConstMatrixF> blocks) const;
  virtual EigenResult DoDecomposeGram(const Matrix& gram) const;

  std::unique_ptr<ThreadPool> pool_;
};

inline constexpr int64_t kGramSlice = 512;  // columns

namespace detail {
std::unique_ptr<Svd> CreateEigenSvd();
std::unique_ptr<Svd> CreateLapackSvd();
#ifdef KVC_CUDA
std::unique_ptr<Svd> CreateCuSolverSvd();
#endif
}  // namespace detail

}  // namespace kvc::linalg
