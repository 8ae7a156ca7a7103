#pragma once
// Singular value decompositions and symmetric eigenvectors. There is one interface and one file for
// each backend: Eigen (always there), LAPACK (OpenBLAS's, the default), cuSOLVER (with
// -DKVC_CUDA=ON; needs a device).

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "linalg/matrix.h"

namespace kvc::linalg {

enum class SvdBackend { kEigen, kLapack, kCuSolver };
// "eigen", "lapack", "cusolver"
[[nodiscard]] std::string SvdBackendName(SvdBackend backend);

// The decomposition a = u diag(s) vt of a [m, n], with k = min(m, n) and s descending.
struct SvdResult {
  Matrix u;               // [m, k], orthonormal columns
  std::vector<double> s;  // [k], >= 0
  Matrix vt;              // [k, n], orthonormal rows
};

// The decomposition a = vectors diag(values) vectors^T, values descending.
struct EigenResult {
  std::vector<double> values;  // [n]
  Matrix vectors;              // [n, n], columns
};

// The Gram matrix a a^T [n, n] of a block a [n, m] and its decomposition. The vectors are the left
// singular vectors of a, the values the squares of its singular values (rounding can leave the
// smallest below zero).
struct GramResult {
  Matrix gram;
  EigenResult eigen;
};

// A backend. Its functions may be called by one thread at a time.
class Svd {
 public:
  // Makes a backend whose DecomposeGrams uses `num_threads` threads (0: one per core). Throws
  // kDevice when the backend is not in this build, or finds no device.
  static std::unique_ptr<Svd> Create(SvdBackend backend, int num_threads = 1);
  virtual ~Svd();
  [[nodiscard]] virtual SvdBackend backend() const = 0;
  // Decompose a matrix, or a symmetric one. Both throw kNumeric when `a` holds a NaN or an
  // infinity, or without convergence (naming the shape and the library's status), and kBadShape
  // when it is empty or, for the second, not square. Signs are fixed: the largest component of each
  // left vector (the lowest index of ties) is positive.
  [[nodiscard]] SvdResult Decompose(ConstMatrixD a) const;
  [[nodiscard]] EigenResult DecomposeSymmetric(ConstMatrixD a) const;
  // Finds the principal directions of many blocks a [n, m] from their Gram matrices instead of
  // their SVD; m is usually far above n, and the sizes may differ from block to block. On the CPU
  // each thread takes one block at a time. The products are in float over slices of kGramSlice
  // columns, and slices are summed in double: a value is off by about 1e-6 of the largest one,
  // hence a singular value s by 1e-6 s_max^2 / (2 s). LAPACK's vectors have the accuracy of float:
  // they are orthonormal within about 1e-6 and turned by about 1e-7 of the largest value over the
  // gap to the next; their values are computed from them in double. Failures and signs are those of
  // the other two. The result does not depend on the number of threads.
  [[nodiscard]] std::vector<GramResult> DecomposeGrams(std::span<const ConstMatrixF> blocks) const;

 protected:
  Svd();

 private:
  [[nodiscard]] virtual SvdResult DoDecompose(ConstMatrixD a) const = 0;
  [[nodiscard]] virtual EigenResult DoDecomposeSymmetric(ConstMatrixD a) const = 0;
  // Decomposes every block on its own, by DoDecomposeGram. That is DoDecomposeSymmetric unless a
  // backend has a form of its own.
  [[nodiscard]] virtual std::vector<GramResult> DoDecomposeGrams(
      std::span<const ConstMatrixF> blocks) const;
  [[nodiscard]] virtual EigenResult DoDecomposeGram(const Matrix& gram) const;

  std::unique_ptr<ThreadPool> pool_;
};

// Columns of a slice of a Gram matrix's products.
inline constexpr int64_t kGramSlice = 512;

namespace detail {
std::unique_ptr<Svd> CreateEigenSvd();
std::unique_ptr<Svd> CreateLapackSvd();
#ifdef KVC_CUDA
std::unique_ptr<Svd> CreateCuSolverSvd();
#endif
}  // namespace detail

}  // namespace kvc::linalg
