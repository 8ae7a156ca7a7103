#pragma once
// Device code of the cuSOLVER backend. Part of svd_cusolver.cc; nothing else includes it.

#include <cstdint>

struct CUstream_st;  // what a cudaStream_t points to

namespace kvc::linalg::detail {

// sum[i] += part[i] for i < count, both on the device: Gram matrices of slices, float, into their
// sum, double. Does not wait. Throws kDevice when the launch fails.
void AddToSums(const float* part, int64_t count, double* sum, CUstream_st* stream);

// matrix[r, c] = matrix[c, r] for r < c in each of `count` [n, n] matrices on the device: products
// in float need not be symmetric in their last bit. Does not wait. Throws kDevice likewise.
void MirrorLower(double* matrices, int64_t n, int64_t count, CUstream_st* stream);

}  // namespace kvc::linalg::detail
