#include <algorithm>

#include <cuda_runtime.h>

#include "core/base/error.h"
#include "linalg/svd_cusolver.h"

namespace kvc::linalg::detail {
namespace {

constexpr int kBlockThreads = 256;
// More blocks than any device runs at once gain nothing; threads then take several elements.
constexpr int64_t kMaxBlocks = 4096;

int GridFor(int64_t count) {
  return static_cast<int>(std::min(kMaxBlocks, (count + kBlockThreads - 1) / kBlockThreads));
}

void CheckLaunch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  KVC_CHECK(error == cudaSuccess, kDevice, "{}: expected a launch, got {}", kernel,
            cudaGetErrorString(error));
}

// Thread t of all takes the elements t, t + threads, ...
__global__ void AddToSumsKernel(const float* part, int64_t count, double* sum) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += threads) {
    sum[i] += static_cast<double>(part[i]);
  }
}

// Element i of all lies in matrix i / (n n); threads take those above the diagonal.
__global__ void MirrorLowerKernel(double* matrices, int64_t n, int64_t count) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count * n * n;
       i += threads) {
    const int64_t row = i / n % n;
    const int64_t col = i % n;
    if (row < col) {
      double* matrix = matrices + i / (n * n) * n * n;
      matrix[row * n + col] = matrix[col * n + row];
    }
  }
}

}  // namespace

void AddToSums(const float* part, int64_t count, double* sum, CUstream_st* stream) {
  if (count == 0) return;
  AddToSumsKernel<<<GridFor(count), kBlockThreads, 0, stream>>>(part, count, sum);
  CheckLaunch("AddToSums");
}

void MirrorLower(double* matrices, int64_t n, int64_t count, CUstream_st* stream) {
  if (n == 0 || count == 0) return;
  MirrorLowerKernel<<<GridFor(count * n * n), kBlockThreads, 0, stream>>>(matrices, n, count);
  CheckLaunch("MirrorLower");
}

}  // namespace kvc::linalg::detail
