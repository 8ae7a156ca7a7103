#pragma once
// Operations on the heads of a row that make thin queries and keys from full ones, on the device;
// the twin of kernels/heads.h. Sums are in float, in an order that depends on widths alone. Nothing
// waits for the stream. Throws kBadShape where shapes differ, kUnsupported for dtypes other than
// f32, f16 and bf16.

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// Multiplies every head of a row by the matrix of its group:
//   y_{t, h, r} = bias_{g, r} + sum_d x_{t, h, d} columns_{g, d, r},  g = h / (heads / groups).
// x [T, heads * D] and y [T, heads * R] of one dtype; columns [groups * D, R] in f32 (group after
// group); bias [groups * R] in f32, or null.
void ProjectHeads(const ConstRows& x,
                  int64_t heads,
                  const ConstRows& columns,
                  int64_t groups,
                  const float* bias,
                  const Rows& y,
                  StreamHandle stream);

// Turns adjacent columns (2i, 2i + 1) of each row in place by the angle of pair pairs[i]:
// x [T, 2P]; pairs [P] on the device, of 0 .. table.half - 1, or -1 for columns that stay. Row t
// has position positions[t], on the device. Heads that lie side by side are turned together: their
// lists follow each other.
void RotatePairs(const Rows& x,
                 const int32_t* pairs,
                 const int32_t* positions,
                 const RotationTable& table,
                 StreamHandle stream);

}  // namespace kvc::cuda
