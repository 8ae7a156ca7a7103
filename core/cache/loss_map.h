#pragma once
// Maps from the scores of a cache's tokens to the losses to expect: how much a group really loses
// when a token is dropped that has a certain score at the end of the prompt. A score is a guess
// from the prompt's queries; the mean loss at equal scores, measured on calibration text, corrects
// what it always over- or underestimates. Above all, a token that the prompt hardly asked for still
// has a small chance to be asked for.
//
// A map is a polyline through points (x_i, y_i), x ascending, y not falling:
//
//   f(s) = y_0 below x_0,  linear between the points,  y_n s / x_n above the last
//
// kvc-profile fits it (profile/loss_map_fit.h) by isotonic regression.

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/cache/scorer_spec.h"

namespace kvc {

inline constexpr int64_t kLossMapPoints = 32;

// Maps of one layer's groups for one scorer. Fewer points are padded by repeating the last.
struct LossMaps {
  std::vector<float> scores;  // [groups, kLossMapPoints], x
  std::vector<float> losses;  // [groups, kLossMapPoints], y

  friend bool operator==(const LossMaps&, const LossMaps&) = default;
};

// A layer's, by scorer.
using LossMapsByScorer = std::map<ScorerSpec, LossMaps>;

// One group's map. Borrows; without points it is the identity.
class LossMapView {
 public:
  LossMapView() = default;
  // Throws kBadShape when the maps have no such group.
  LossMapView(const LossMaps& maps, int64_t group);

  // f(score) for a score of 0 or more; infinity stays infinity. Never falls, never negative.
  [[nodiscard]] double operator()(double score) const;
  [[nodiscard]] bool empty() const { return scores_.empty(); }

 private:
  std::span<const float> scores_;
  std::span<const float> losses_;
};

// Throws, naming `what`: kBadShape unless the maps have as many scores as losses, kLossMapPoints
// for each of some groups; kNumeric for a NaN or infinity; kBadInput for a negative number, for
// scores or losses that fall, and for a last score of 0.
void CheckLossMaps(const LossMaps& maps, const std::string& what);

}  // namespace kvc
