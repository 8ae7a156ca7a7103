#pragma once
// The last bytes of a tier allocation: an exact choice among the few tokens that lambda decides
// most narrowly (the core of a knapsack). Internal to the tier allocator.

#include <cstdint>
#include <vector>

#include "solver/token_hull.h"

namespace kvc::solver {

struct NarrowToken {
  int64_t token = 0;
  const float* losses = nullptr;  // [K]
  const TierColumns* tiers = nullptr;
  uint8_t choice = 0;  // a column; changed where another serves better
};

// Least sum of losses when the tokens may spend what they hold and `room` bytes more, by dynamic
// programming over the bytes (in `unit`) by which they depart from what they hold; departures of
// more than two tokens' dearest tiers are not followed. Updates the choices and `room`. Never
// worse than before.
void ChooseAnew(double lambda, int64_t unit, int64_t& room, std::vector<NarrowToken>& tokens);

}  // namespace kvc::solver
