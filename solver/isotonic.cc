#include "solver/isotonic.h"

#include <cmath>

#include "core/base/error.h"

namespace kvc::solver {
namespace {

IsotonicBlock Pooled(const IsotonicBlock& a, const IsotonicBlock& b) {
  const double weight = a.weight + b.weight;
  return {(a.x * a.weight + b.x * b.weight) / weight, (a.y * a.weight + b.y * b.weight) / weight,
          weight};
}

}  // namespace

std::vector<IsotonicBlock> FitIsotonic(std::span<const IsotonicBlock> observations) {
  std::vector<IsotonicBlock> blocks;
  double place = 0.0;
  for (size_t i = 0; i < observations.size(); ++i) {
    IsotonicBlock block = observations[i];
    KVC_CHECK(std::isfinite(block.x) && std::isfinite(block.y) && std::isfinite(block.weight),
              kNumeric, "isotonic regression: expected finite numbers, got NaN or infinity");
    KVC_CHECK(block.weight > 0.0 && (i == 0 || block.x >= place), kBadShape,
              "isotonic regression: expected positive weights and places that rise");
    place = block.x;
    while (!blocks.empty() && blocks.back().y >= block.y) {
      block = Pooled(blocks.back(), block);
      blocks.pop_back();
    }
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace kvc::solver
