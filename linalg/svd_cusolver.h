#pragma once
// Device code of the cuSOLVER backend, for svd_cusolver.cc alone. The functions only launch: they
// do not wait for the device. They throw kDevice when a launch fails.

#include <cstdint>

struct CUstream_st;  // what a cudaStream_t points to

namespace kvc::linalg::detail {

// Adds the Gram matrices of a slice, in float, to their sums, in double: sum[i] += part[i] for
// i < count, both on the device.
void AddToSums(const float* part, int64_t count, double* sum, CUstream_st* stream);

// Copies the lower triangle to the upper one, matrix[r, c] = matrix[c, r] for r < c, in each of
// `count` matrices [n, n] on the device: products in float need not be symmetric in their last bit.
void MirrorLower(double* matrices, int64_t n, int64_t count, CUstream_st* stream);

}  // namespace kvc::linalg::detail
