#pragma once
// Products of a few rows with a weight matrix, as a decode step has them: the weights are read
// once, at the memory's speed, whatever the number of rows.

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

constexpr int64_t kMostProductRows = 8;

// y = x W^T + bias, or y += x W^T + bias with `add`. x [T, in] and y [T, out] of one dtype, T <= 8;
// W [out, in] of any; bias [out] in f32, or null. Any width and address: where rows of W and x
// begin at multiples of 16 bytes they are read 16 bytes at a time, else by elements. Sums in float,
// in an order that depends on `in` and this alone. Throws kBadShape, kUnsupported. Nothing waits
// for the stream.
void FewRowProduct(const ConstRows& x,
                   const ConstRows& w,
                   const float* bias,
                   bool add,
                   const Rows& y,
                   StreamHandle stream);

}  // namespace kvc::cuda
