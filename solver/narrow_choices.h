#pragma once
// The last bytes of a tier allocation: an exact choice for the few tokens that lambda decides most
// narrowly (the core of a knapsack). Internal to the tier allocator.

#include <cstdint>
#include <vector>

#include "solver/token_hull.h"

namespace kvc::solver {

// A token whose tier is chosen again.
struct NarrowToken {
  int64_t token = 0;
  const float* losses = nullptr;  // [K]
  const TierColumns* tiers = nullptr;
  uint8_t choice = 0;  // a column; changed where another serves better
};

// Chooses the tiers with the least sum of losses when the tokens may spend `room` bytes more than
// now, by dynamic programming over the difference from what they spend now, in steps of `unit`
// bytes. Differences of more than the dearest tiers of two tokens are not followed. Updates the
// choices and `room`; the sum is never larger than before.
void RefineChoices(double lambda, int64_t unit, int64_t& room, std::vector<NarrowToken>& tokens);

}  // namespace kvc::solver
