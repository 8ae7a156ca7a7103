#pragma once
// Row-wise operations between the products of a decoder, on the device; the twin of
// kernels/elementwise.h. Elements are of one dtype in a call, sums and functions in float. Nothing
// waits for the stream. Throws kBadShape where shapes differ, kUnsupported for other dtypes.

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// y = x, between column ranges; of one dtype, or one of them in f32. May be the same rows.
void Copy(const ConstRows& x, const Rows& y, StreamHandle stream);

// y += x
void Add(const ConstRows& x, const Rows& y, StreamHandle stream);
// y *= x
void Multiply(const ConstRows& x, const Rows& y, StreamHandle stream);

// silu(z) = z / (1 + e^-z); gelu by its tanh approximation (GPT-2's gelu_new), and exact (erf).
enum class Activation { kSilu, kGeluTanh, kGeluExact };
// y = f(x); may alias.
void Activate(Activation f, const ConstRows& x, const Rows& y, StreamHandle stream);
// y = f(gate) * up; y may alias either.
void ActivateMul(
    Activation f, const ConstRows& gate, const ConstRows& up, const Rows& y, StreamHandle stream);

// Angles of a rotation as a table, so that every kind of rotary embedding is only another table.
struct RotationTable {
  const float* cos = nullptr;  // [max_position, half]
  const float* sin = nullptr;  // [max_position, half]
  int64_t half = 0;            // pairs that turn; the rest of a head stays
};
// Rotates `heads` consecutive head-wide slices of each row in place, half-split pairs
// (j, j + half): x [T, heads * D], half <= D / 2; row t has position positions[t], on the device.
void Rotate(const Rows& x,
            int64_t heads,
            const int32_t* positions,
            const RotationTable& table,
            StreamHandle stream);

// y_t = table[ids[t]]: ids [T] on the device, all in [0, table.rows). y has the table's dtype or
// f32.
void Embed(const int32_t* ids, const ConstRows& table, const Rows& y, StreamHandle stream);

}  // namespace kvc::cuda
