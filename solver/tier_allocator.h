#pragma once
// The tier allocator, which chooses a tier for every cached token: minimise sum_i loss_i(t_i)
// subject to sum_i cost(t_i) <= budget, t_i one of a few tiers (DESIGN section 6, [MixedDim]).
//
// For a price lambda of a byte each token takes the tier of least loss + lambda cost, which lies on
// the lower hull of its tiers. The lambda at which the budget is spent is found exactly, by
// selection among the slopes of the hulls, in time linear in the tokens. The bytes that the split
// increment leaves are spent among the tokens whose choice lambda decides most narrowly. The
// Lagrangian bound at lambda is evaluated for every token, so the gap objective - bound is
// certified.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::solver {

// Tokens that have the same tiers: those of a cache group.
struct TierGroup {
  int64_t num_tokens = 0;
  std::span<const float> losses;   // [num_tokens, K]; +infinity where a token may not take a tier
  std::span<const int64_t> costs;  // [K] in bytes, in any order; dropping is a tier like others
};

// The most tiers that a group may have.
inline constexpr int64_t kMaxTiers = 32;

struct TierAllocation {
  std::vector<uint8_t> choice;  // column of each token's tier, group after group
  double objective = 0.0;       // sum of losses at the choices
  double bound = 0.0;           // no allocation within the budget has less loss
  int64_t cost = 0;             // sum of costs at the choices, at most the budget
  double lambda = 0.0;          // loss that one more byte saves
};

// Allocates the budget. Ties go to the earlier token. Throws kBadShape for sizes that disagree,
// kNumeric for a NaN or -infinity and for a token without a tier that it may take, kInfeasible
// naming the smallest possible budget.
[[nodiscard]] TierAllocation AllocateTiers(std::span<const TierGroup> groups, int64_t budget);

}  // namespace kvc::solver
