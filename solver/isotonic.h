#pragma once
// Isotonic regression by pool adjacent violators: the non-decreasing function of least squared
// error.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::solver {

// Consecutive observations that have one fitted value.
struct IsotonicBlock {
  double x = 0.0;       // weighted mean of the observations' places
  double y = 0.0;       // and of their values: the fit
  double weight = 0.0;  // sum, > 0
};

// Fits observations in the order of their places x: minimises the sum of weight (y_i - f(x_i))^2
// over all f that do not fall. Returns the blocks in order; y rises strictly from one to the next.
// Takes time linear in the observations. Throws kBadShape for weights of 0 or less and for places
// that fall, kNumeric for what is not finite.
[[nodiscard]] std::vector<IsotonicBlock> FitIsotonic(std::span<const IsotonicBlock> observations);

}  // namespace kvc::solver
