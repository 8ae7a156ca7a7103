#pragma once
// The rule by which cached tokens get a tier or are dropped: from the losses of each tier to a
// choice under a number of bytes. The runtime and kvc-profile, which predicts it, share it.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/view.h"

namespace kvc::solver {

// The tokens of one cache group, and its K tiers by falling width.
struct TierOffer {
  // [n, K]: column 0 of dropping a token, column t >= 1 of keeping tier t of it.
  ConstMatrixD losses;
  std::span<const int64_t> bytes;  // [K] of a token in each tier; a dropped one takes none
  // [n] the tier that each token has now, which costs it nothing; empty: all have tier 0.
  std::span<const int64_t> now;
  // [K, K] row-major: whether tier t can be made of a token in tier `now`; empty: all can.
  std::span<const uint8_t> reaches;
};

class TierChoice {
 public:
  // Keeps nothing of the offer. Throws kBadShape for sizes that disagree.
  explicit TierChoice(const TierOffer& offer);

  // For each token 0 where it is dropped, 1 + t where it gets tier t: least sum of losses within
  // `budget` bytes (solver/tier_allocator.h), ties to the earlier token. Throws as AllocateTiers
  // does.
  [[nodiscard]] std::vector<uint8_t> Within(int64_t budget) const;

 private:
  int64_t count_ = 0;
  std::vector<int64_t> costs_;  // [1 + K]: dropped, then the tiers
  std::vector<float> losses_;   // [n, 1 + K]; +infinity where a token cannot have a tier
};

}  // namespace kvc::solver
