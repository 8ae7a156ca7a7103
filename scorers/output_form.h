#pragma once
// Squared changes of an attention output as the residual stream sees them: the arithmetic that the
// score `output-error` and the losses of tiers share. With M = W_O^T W_O of a query head [D, D]
//
//   |(v_j - o) W_O^T|^2 = (v_j - o) M (v_j - o)^T = v_j M v_j^T - 2 o M v_j^T + o M o^T

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/view.h"

namespace kvc::scorers {

// A token with more of a query's attention than this is left out of the expanded square above,
// which would lose its digits. There is at most one such token for each query.
inline constexpr float kDominantAttention = 0.5F;

// Writes the rows v M of values [T, D] to projected [T, D], and v M v^T to norms [T].
void ProjectValues(ConstMatrixF values,
                   ConstMatrixF gram,
                   MatrixF projected,
                   std::span<float> norms);

// The expanded square from its three terms: norm = v M v^T, cross = o M v^T, own = o M o^T.
// Rounding does not leave it below 0; a NaN stays one.
[[nodiscard]] inline float ExpandedSquare(float norm, float cross, float own) {
  const float square = norm - 2.0F * cross + own;
  return square < 0.0F ? 0.0F : square;
}

// x M y^T of rows [D], summed in double over the rows of M.
[[nodiscard]] double BilinearForm(const float* x, ConstMatrixF gram, const float* y);

}  // namespace kvc::scorers
