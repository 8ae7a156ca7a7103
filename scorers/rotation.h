#pragma once
// Where the rotation turns queries that come later; what scorers of coming queries share.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::scorers {

// Mean rotation over some positions, for each pair (d, d + D/2): the matrix [[cos, -sin], [sin,
// cos]] averaged. Double: it is small, and positions are large.
struct MeanRotation {
  std::vector<double> cos, sin;  // [D_k/2]; empty: identity
};

// Over positions first .. first + count - 1; frequencies [D_k/2] or none.
[[nodiscard]] MeanRotation AverageRotation(std::span<const double> frequencies,
                                           int64_t first,
                                           int64_t count);

// x <- Rbar x for a vector [D_k] whose elements lie `stride` apart.
void Rotate(const MeanRotation& rotation, float* x, int64_t stride);

}  // namespace kvc::scorers
