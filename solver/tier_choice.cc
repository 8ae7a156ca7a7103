#include "solver/tier_choice.h"

#include <limits>

#include "core/base/error.h"
#include "solver/tier_allocator.h"

namespace kvc::solver {

TierChoice::TierChoice(const TierOffer& offer) : count_(offer.losses.rows) {
  const int64_t tiers = std::ssize(offer.bytes);
  const bool fits = offer.losses.cols == tiers &&
                    (offer.now.empty() || std::ssize(offer.now) == count_) &&
                    (offer.reaches.empty() || std::ssize(offer.reaches) == tiers * tiers);
  KVC_CHECK(fits, kBadShape,
            "tiers: expected losses [{}, {}] and a tier for each token, got {} columns", count_,
            tiers, offer.losses.cols);
  costs_.push_back(0);
  costs_.insert(costs_.end(), offer.bytes.begin(), offer.bytes.end());
  losses_.assign(static_cast<size_t>(count_ * (1 + tiers)), std::numeric_limits<float>::infinity());
  for (int64_t j = 0; j < count_; ++j) {
    float* row = losses_.data() + j * (1 + tiers);
    const int64_t now = offer.now.empty() ? 0 : offer.now[j];
    row[0] = static_cast<float>(offer.losses(j, 0));
    for (int64_t t = 1; t < tiers; ++t) {
      if (offer.reaches.empty() || offer.reaches[now * tiers + t] != 0) {
        row[1 + t] = static_cast<float>(offer.losses(j, t));
      }
    }
    row[1 + now] = 0.0F;  // nothing is lost by staying
  }
}

std::vector<uint8_t> TierChoice::Within(int64_t budget) const {
  const TierGroup group = {count_, losses_, costs_};
  return AllocateTiers(std::span(&group, 1), budget).choice;
}

}  // namespace kvc::solver
