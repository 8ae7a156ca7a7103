#include "linalg/svd_cusolver.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include "core/base/error.h"
#include "linalg/svd.h"
#include "linalg/svd_checks.h"

namespace kvc::linalg::detail {
namespace {

// The bytes of the blocks that are on the device at once.
constexpr int64_t kBatchBytes = int64_t{1} << 30;

void Check(cudaError_t error, const char* what) {
  KVC_CHECK(error == cudaSuccess, kDevice, "{}: expected success, got {}; use --device cpu", what,
            cudaGetErrorString(error));
}

void Check(cublasStatus_t status, const char* what) {
  KVC_CHECK(status == CUBLAS_STATUS_SUCCESS, kDevice, "{}: expected success, got {}", what,
            cublasGetStatusString(status));
}

void Check(cusolverStatus_t status, const char* what) {
  KVC_CHECK(status == CUSOLVER_STATUS_SUCCESS, kDevice, "{}: expected success, got the status {}",
            what, static_cast<int>(status));
}

// Owned device memory of `count` elements.
template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(int64_t count) : count_(count) {
    void* memory = nullptr;
    Check(cudaMalloc(&memory, static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T)),
          "device memory");
    data_ = static_cast<T*>(memory);
  }
  ~DeviceBuffer() { (void)cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] int64_t count() const { return count_; }
  void Upload(const T* source, int64_t count) const {
    Check(cudaMemcpy(data_, source, count * sizeof(T), cudaMemcpyHostToDevice), "copy to device");
  }
  void Download(T* target, int64_t count) const {
    Check(cudaMemcpy(target, data_, count * sizeof(T), cudaMemcpyDeviceToHost), "copy from device");
  }
  [[nodiscard]] std::vector<T> Download() const {
    std::vector<T> all(count_);
    Download(all.data(), count_);
    return all;
  }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// The elements row by row, without gaps between rows.
std::vector<double> Dense(ConstMatrixD a) {
  std::vector<double> dense(a.rows * a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    std::copy_n(a.row(r), a.cols, dense.begin() + r * a.cols);
  }
  return dense;
}

void CheckInfo(int info, const char* routine, int64_t rows, int64_t cols) {
  KVC_CHECK(info == 0, kNumeric,
            "cuSOLVER {} of [{}, {}]: expected info 0, got {}; the matrix may be too badly scaled",
            routine, rows, cols, info);
}

// Turns the results of Xgesvd into a decomposition: values [k], left [rows, k] and V^T [k, k], both
// by columns. They belong to the transpose of the matrix unless that is `tall`.
SvdResult Oriented(const DeviceBuffer<double>& values,
                   const DeviceBuffer<double>& left,
                   const DeviceBuffer<double>& right,
                   bool tall) {
  const int64_t k = values.count();
  const int64_t rows = left.count() / k;
  SvdResult result;
  result.s = values.Download();
  Matrix left_rows(k, rows);  // U^T by rows
  Matrix right_rows(k, k);    // V by rows
  left.Download(left_rows.data.data(), k * rows);
  right.Download(right_rows.data.data(), k * k);
  if (tall) {
    result.u = Transpose(left_rows.view());
    result.vt = Transpose(right_rows.view());
  } else {
    result.u = std::move(right_rows);
    result.vt = std::move(left_rows);
  }
  return result;
}

// A decomposition with descending values, from ascending values [n] and vectors as rows [n, n].
EigenResult Descending(int64_t n, const double* values, const double* rows) {
  EigenResult result;
  result.vectors = Matrix(n, n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t from = n - 1 - i;
    result.values.push_back(values[from]);
    for (int64_t d = 0; d < n; ++d) result.vectors(d, i) = rows[from * n + d];
  }
  return result;
}

class CuSolverSvd : public Svd {
 public:
  CuSolverSvd() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    KVC_CHECK(error == cudaSuccess && count > 0, kDevice,
              "CUDA device: expected one, got {}; use --device cpu",
              error == cudaSuccess ? "none" : cudaGetErrorString(error));
    Check(cublasCreate(&blas_), "cuBLAS handle");
    Check(cusolverDnCreate(&solver_), "cuSOLVER handle");
    Check(cusolverDnCreateParams(&params_), "cuSOLVER parameters");
  }
  ~CuSolverSvd() override {
    if (params_ != nullptr) (void)cusolverDnDestroyParams(params_);
    if (solver_ != nullptr) (void)cusolverDnDestroy(solver_);
    if (blas_ != nullptr) (void)cublasDestroy(blas_);
  }
  [[nodiscard]] SvdBackend backend() const override { return SvdBackend::kCuSolver; }

 private:
  [[nodiscard]] SvdResult DoDecompose(ConstMatrixD a) const override;
  [[nodiscard]] EigenResult DoDecomposeSymmetric(ConstMatrixD a) const override;
  [[nodiscard]] std::vector<GramResult> DoDecomposeGrams(
      std::span<const ConstMatrixF> blocks) const override;

  // Decomposes blocks of one shape, as many as kBatchBytes holds.
  void DecomposeBatch(std::span<const ConstMatrixF> blocks, std::span<GramResult> results) const;
  // Computes the Gram matrices [n, n] of blocks [n, m] that lie one after the other.
  void Grams(const float* blocks, int64_t n, int64_t m, int64_t count, double* grams) const;
  // Decomposes `count` symmetric matrices on the device in place.
  std::vector<EigenResult> Eigenvectors(const DeviceBuffer<double>& matrices,
                                        int64_t n,
                                        int64_t count) const;

  cublasHandle_t blas_ = nullptr;
  cusolverDnHandle_t solver_ = nullptr;
  cusolverDnParams_t params_ = nullptr;
};

void CuSolverSvd::Grams(
    const float* blocks, int64_t n, int64_t m, int64_t count, double* grams) const {
  const DeviceBuffer<float> part(count * n * n);
  Check(cudaMemset(grams, 0, count * n * n * sizeof(double)), "device memory");
  const float one = 1.0F;
  const float zero = 0.0F;
  for (int64_t begin = 0; begin < m; begin += kGramSlice) {
    // By columns, as cuBLAS reads, a block is a^T [m, n]; its Gram matrix is (a^T)^T a^T.
    Check(cublasSgemmStridedBatched(
              blas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(n), static_cast<int>(n),
              static_cast<int>(std::min(kGramSlice, m - begin)), &one, blocks + begin,
              static_cast<int>(m), n * m, blocks + begin, static_cast<int>(m), n * m, &zero,
              part.data(), static_cast<int>(n), n * n, static_cast<int>(count)),
          "cuBLAS gemm of Gram matrices");
    AddToSums(part.data(), count * n * n, grams, nullptr);
  }
  MirrorLower(grams, n, count, nullptr);
}

std::vector<EigenResult> CuSolverSvd::Eigenvectors(const DeviceBuffer<double>& matrices,
                                                   int64_t n,
                                                   int64_t count) const {
  const DeviceBuffer<double> values(count * n);
  const DeviceBuffer<int> infos(count);
  size_t device_bytes = 0, host_bytes = 0;
  const auto type = CUDA_R_64F;
  // Both calls take the same description of the problem.
  const auto call = [&](auto function, auto... rest) {
    return function(solver_, params_, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, type,
                    matrices.data(), n, type, values.data(), type, rest...);
  };
  Check(call(cusolverDnXsyevBatched_bufferSize, &device_bytes, &host_bytes, count),
        "cuSOLVER XsyevBatched work space");
  const DeviceBuffer<std::byte> device_work(static_cast<int64_t>(device_bytes));
  std::vector<std::byte> host_work(host_bytes);
  Check(call(cusolverDnXsyevBatched, device_work.data(), device_bytes, host_work.data(), host_bytes,
             infos.data(), count),
        "cuSOLVER XsyevBatched");
  const std::vector<int> info = infos.Download();
  const std::vector<double> ascending = values.Download();
  const std::vector<double> rows = matrices.Download();  // by columns: row i is the i-th vector
  std::vector<EigenResult> results;
  for (int64_t b = 0; b < count; ++b) {
    CheckInfo(info[b], "XsyevBatched", n, n);
    results.push_back(Descending(n, ascending.data() + b * n, rows.data() + b * n * n));
  }
  return results;
}

void CuSolverSvd::DecomposeBatch(std::span<const ConstMatrixF> blocks,
                                 std::span<GramResult> results) const {
  const auto count = std::ssize(blocks);
  const int64_t n = blocks[0].rows;
  const int64_t m = blocks[0].cols;
  const DeviceBuffer<float> device_blocks(count * n * m);
  for (int64_t b = 0; b < count; ++b) {
    Check(cudaMemcpy2D(device_blocks.data() + b * n * m, m * sizeof(float), blocks[b].data,
                       blocks[b].stride * sizeof(float), m * sizeof(float), n,
                       cudaMemcpyHostToDevice),
          "copy to device");
  }
  const DeviceBuffer<double> grams(count * n * n);
  Grams(device_blocks.data(), n, m, count, grams.data());
  const std::vector<double> sums = grams.Download();
  for (int64_t b = 0; b < count; ++b) {
    results[b].gram = Matrix(n, n);
    std::copy_n(sums.begin() + b * n * n, n * n, results[b].gram.data.begin());
    CheckGram(blocks[b], results[b].gram);
  }
  std::vector<EigenResult> eigen = Eigenvectors(grams, n, count);
  for (int64_t b = 0; b < count; ++b) results[b].eigen = std::move(eigen[b]);
}

std::vector<GramResult> CuSolverSvd::DoDecomposeGrams(std::span<const ConstMatrixF> blocks) const {
  std::vector<GramResult> results(blocks.size());
  for (size_t begin = 0; begin < blocks.size();) {
    const ConstMatrixF& first = blocks[begin];
    const int64_t bytes = first.rows * (first.cols + 3 * first.rows) * sizeof(float);
    const int64_t most = std::max<int64_t>(1, kBatchBytes / std::max<int64_t>(bytes, 1));
    size_t end = begin + 1;
    while (end < blocks.size() && static_cast<int64_t>(end - begin) < most &&
           blocks[end].rows == first.rows && blocks[end].cols == first.cols) {
      ++end;
    }
    DecomposeBatch(blocks.subspan(begin, end - begin),
                   std::span(results).subspan(begin, end - begin));
    begin = end;
  }
  return results;
}

EigenResult CuSolverSvd::DoDecomposeSymmetric(ConstMatrixD a) const {
  const DeviceBuffer<double> matrix(a.rows * a.rows);
  matrix.Upload(Dense(a).data(), a.rows * a.rows);
  return std::move(Eigenvectors(matrix, a.rows, 1).front());
}

SvdResult CuSolverSvd::DoDecompose(ConstMatrixD a) const {
  // By columns, as cuSOLVER reads, `a` is a^T [cols, rows], and gesvd wants as many rows as columns
  // at least. A tall `a` is handed over transposed, so that it is read as it is.
  const bool tall = a.rows > a.cols;
  const int64_t rows = std::max(a.rows, a.cols);  // of what cuSOLVER sees
  const int64_t k = std::min(a.rows, a.cols);
  const DeviceBuffer<double> input(rows * k);
  const DeviceBuffer<double> left(rows * k);
  const DeviceBuffer<double> right(k * k);
  const DeviceBuffer<double> values(k);
  const DeviceBuffer<int> info(1);
  input.Upload(Dense(tall ? Transpose(a).view() : a).data(), rows * k);
  size_t device_bytes = 0, host_bytes = 0;
  const auto type = CUDA_R_64F;
  // Both calls describe the problem in the same words.
  const auto call = [&](auto function, auto... work) {
    return function(solver_, params_, 'S', 'S', rows, k, type, input.data(), rows, type,
                    values.data(), type, left.data(), rows, type, right.data(), k, type, work...);
  };
  Check(call(cusolverDnXgesvd_bufferSize, &device_bytes, &host_bytes),
        "cuSOLVER Xgesvd work space");
  const DeviceBuffer<std::byte> device_work(static_cast<int64_t>(device_bytes));
  std::vector<std::byte> host_work(host_bytes);
  Check(call(cusolverDnXgesvd, device_work.data(), device_bytes, host_work.data(), host_bytes,
             info.data()),
        "cuSOLVER Xgesvd");
  CheckInfo(info.Download()[0], "Xgesvd", a.rows, a.cols);
  return Oriented(values, left, right, tall);
}

}  // namespace

std::unique_ptr<Svd> CreateCuSolverSvd() { return std::make_unique<CuSolverSvd>(); }

}  // namespace kvc::linalg::detail
