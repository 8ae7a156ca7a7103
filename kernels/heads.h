#pragma once
// Operations on the heads of a row that make thin queries and keys from full ones. Rows are
// independent of one another; both operations accumulate in float in a fixed order.

#include <cstdint>
#include <span>

#include "core/base/thread_pool.h"
#include "core/base/view.h"

namespace kvc::kernels {

// Multiplies every head of a row by the matrix of its group:
//   y_{t, h, r} = bias_{g, r} + sum_d x_{t, h, d} columns_{g, d, r},  g = h / (heads / groups).
// x [T, heads*D], columns [groups*D, R] (group after group), bias [groups*R] or null,
// y [T, heads*R]. Throws kBadShape.
void ProjectHeads(ConstMatrixF x,
                  int64_t heads,
                  ConstMatrixF columns,
                  int64_t groups,
                  const float* bias,
                  MatrixF y,
                  ThreadPool& pool);

// Turns adjacent dimensions (2i, 2i+1) of each row in place by the angle of pair pairs[i]:
// x [T, 2P], pairs [P] of 0..cols-1; row t has position positions[t]; cos, sin
// [max_position, cols]. Throws kBadShape.
void RopePairs(MatrixF x,
               std::span<const int64_t> pairs,
               std::span<const int32_t> positions,
               ConstMatrixF cos,
               ConstMatrixF sin,
               ThreadPool& pool);

}  // namespace kvc::kernels
