#pragma once
// The rotation of queries at coming positions, for scorers that expect such queries.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::scorers {

// The mean over some positions of the rotation matrices [[cos, -sin], [sin, cos]], for each pair
// (d, d + r/2) of the first r dimensions. It is in double, because it can be small and positions
// are large.
struct MeanRotation {
  std::vector<double> cos, sin;  // [r/2]; empty: identity
};

// The mean rotation over positions first .. first + count - 1, times `factor`; frequencies [r/2],
// or none.
[[nodiscard]] MeanRotation AverageRotation(std::span<const double> frequencies,
                                           int64_t first,
                                           int64_t count,
                                           double factor = 1.0);

// The rotations at single positions first .. first + count - 1, times `factor`: each is the product
// of two out of a table that is far smaller than `count`. Immutable.
class RotationTable {
 public:
  RotationTable(std::span<const double> frequencies, int64_t first, int64_t count, double factor);
  [[nodiscard]] MeanRotation At(int64_t position) const;

 private:
  int64_t first_;
  std::vector<MeanRotation> blocks_;  // every kBlock-th position
  std::vector<MeanRotation> places_;  // in a block
};

// x <- Rbar x for a vector [D_k] whose elements lie `stride` apart.
void Rotate(const MeanRotation& rotation, float* x, int64_t stride);

}  // namespace kvc::scorers
