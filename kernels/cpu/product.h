#pragma once
// The inner parts of PackedWeight::Apply, compiled for each instruction set. Internal to
// kernels/cpu.

#include <cstdint>

#include "core/base/view.h"
#include "kernels/matmul.h"

namespace kvc::kernels {

// A part of a product: rows begin .. end - 1 of a weight. Both functions below compute
// y [T, end - begin] = x [T, in] W[begin:end]^T + bias[begin:end]. Each element is one sum over
// `in`, in an order that depends on `in` and the instruction set alone.
struct ProductPart {
  WeightView weight;
  int64_t begin = 0;
  int64_t end = 0;
  const float* bias = nullptr;  // [out] or null
};

// For a few rows of x: reads W once and keeps it in its stored type until it is multiplied.
void MultiplyFewRows(const ProductPart& part, ConstMatrixF x, MatrixF y);
// For many rows: converts and transposes W into panels that stay in the L2 cache.
void MultiplyManyRows(const ProductPart& part, ConstMatrixF x, MatrixF y);

// Writes the upper halves of `count` floats. Returns false, with `target` unspecified, when a lower
// half is not 0.
bool NarrowToBF16(const float* source, int64_t count, uint16_t* target);

// Writes `count` floats as bf16, rounded to nearest, ties to even; NaN stays NaN.
void RoundToBF16(const float* source, int64_t count, uint16_t* target);
// Likewise in place, kept as floats.
void RoundToBF16(float* row, int64_t count);
// Writes rows begin .. end - 1 of a weight as floats [end - begin, in].
void WidenRows(const WeightView& weight, int64_t begin, int64_t end, float* target);

}  // namespace kvc::kernels
