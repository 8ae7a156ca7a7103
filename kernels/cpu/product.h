#pragma once
// The inner parts of PackedWeight::Apply, compiled for each instruction set. Internal to
// kernels/cpu.

#include <cstdint>

#include "core/base/view.h"
#include "kernels/matmul.h"

namespace kvc::kernels {

// Rows `begin` to `end` of a weight: y [T, end - begin] = x [T, in] W[begin:end]^T +
// bias[begin:end]. Each element is one sum over `in` in an order that depends on `in` and the
// instruction set alone.
struct ProductPart {
  WeightView weight;
  int64_t begin = 0;
  int64_t end = 0;
  const float* bias = nullptr;  // [out] or null
};

// A few rows of x: W is read once, in its stored type, and stays in its type until it is
// multiplied.
void MultiplyFewRows(const ProductPart& part, ConstMatrixF x, MatrixF y);
// Many rows: W is converted and transposed into panels that stay in the L2 cache.
void MultiplyManyRows(const ProductPart& part, ConstMatrixF x, MatrixF y);

// The upper halves of `count` floats. False, with `target` unspecified, when a lower half is not 0.
bool NarrowToBF16(const float* source, int64_t count, uint16_t* target);

}  // namespace kvc::kernels
