#pragma once
// Losses of tiers on the device, summed over the window's queries: the twin of
// scorers/tier_loss.cc before it scales. The loss of dropping a token is SumScores' error
// (scores.h); here come the losses of keeping it as a tier holds it, by the exact formula of
// scorers/tier_loss.h. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/scores.h"

namespace kvc::cuda {

// A head's rows as a tier keeps them, in the space of the head. Rows without data are unchanged.
struct ScoreTier {
  int32_t head = 0;         // of the plan
  CachedRows keys;          // [rows, D_k]
  CachedRows values;        // [rows, D]
  float* losses = nullptr;  // [rows]
};

// Throws kBadShape, naming the tier, for a head that the plan does not have, or other widths than
// its rows have.
void CheckTiers(const ScorePlan& plan, const std::vector<ScoreTier>& tiers);

// Writes for each of tiers [count] on the device the sums of its losses over the window's queries
// and the group's heads, or with `maximum` the largest. Follows SumScores of a plan with `tiers`
// in the stream, with the same heads, scratch and scale.
void TierLosses(const ScorePlan& plan,
                const ScoreHead* heads,
                float* scratch,
                float scale,
                const ScoreTier* tiers,
                int32_t count,
                bool maximum,
                StreamHandle stream);

}  // namespace kvc::cuda
