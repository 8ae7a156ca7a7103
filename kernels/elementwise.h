#pragma once
// Row-wise operations between the products of a decoder. Rows are independent of one another; all
// operations accumulate in float in a fixed order. They throw kBadShape when sizes disagree.

#include <span>

#include "core/base/thread_pool.h"
#include "core/base/view.h"

namespace kvc::kernels {

// y_t = x_t / sqrt(mean(x_t^2) + epsilon) * weight. x, y [T, E]; may alias.
void RmsNorm(
    ConstMatrixF x, std::span<const float> weight, float epsilon, MatrixF y, ThreadPool& pool);
// y_t = (x_t - mean) / sqrt(var + epsilon) * weight + bias. x, y [T, E]; may alias.
void LayerNorm(ConstMatrixF x,
               std::span<const float> weight,
               std::span<const float> bias,
               float epsilon,
               MatrixF y,
               ThreadPool& pool);
// y += x
void Add(ConstMatrixF x, MatrixF y, ThreadPool& pool);
// y *= x
void Multiply(ConstMatrixF x, MatrixF y, ThreadPool& pool);
// y = silu(gate) * up, silu(z) = z / (1 + e^-z). y may alias either.
void SiluMul(ConstMatrixF gate, ConstMatrixF up, MatrixF y, ThreadPool& pool);
// x = gelu(x) in place, by the tanh approximation (GPT-2's gelu_new) or the exact erf form.
void GeluTanh(MatrixF x, ThreadPool& pool);
void GeluExact(MatrixF x, ThreadPool& pool);

// Rotates the first r dimensions of `heads` consecutive head-wide slices of each row in place, as
// half-split pairs (j, j + r/2): x [T, heads*D]; row t has the angles positions[t]; cos, sin
// [max_position, r/2].
void Rope(MatrixF x,
          int64_t heads,
          std::span<const int32_t> positions,
          ConstMatrixF cos,
          ConstMatrixF sin,
          ThreadPool& pool);

// Turns each row of x into probabilities in place: its softmax, with the maximum subtracted.
// Single-threaded.
void SoftmaxRows(MatrixF x);

}  // namespace kvc::kernels
