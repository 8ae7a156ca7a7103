#pragma once
// Fits the map from scores to losses of one group (core/cache/loss_map.h) to the tokens of the
// calibration windows.
//
// Tokens in the order of their scores are taken together by kLossMapTokens or more, equal scores
// always; isotonic regression (solver/isotonic.h) of the means makes the blocks that become points.
// Of more blocks than kLossMapPoints, neighbours whose losses have the least ratio are pooled:
// losses of a head span many orders of magnitude, and what decides is their ratio.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::profile {

inline constexpr size_t kLossMapTokens = 8;

struct ScoredLoss {
  double score = 0.0;  // that the token had at the end of the context, 0 or more
  double loss = 0.0;   // what dropping it then cost the horizon's queries
};

// Points of a map: [kLossMapPoints] each.
struct LossMapPointsOfGroup {
  std::vector<float> scores;
  std::vector<float> losses;
};

// Returns the map; the order of `tokens` does not matter but for sums' rounding. Where no score is
// above 0, or no token was seen, it is the identity's. Throws kNumeric for what is not finite.
[[nodiscard]] LossMapPointsOfGroup FitLossMap(std::vector<ScoredLoss> tokens);

}  // namespace kvc::profile
