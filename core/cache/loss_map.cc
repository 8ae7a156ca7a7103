#include "core/cache/loss_map.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace kvc {

LossMapView::LossMapView(const LossMaps& maps, int64_t group) {
  KVC_CHECK(group >= 0 && (group + 1) * kLossMapPoints <= std::ssize(maps.scores) &&
                maps.scores.size() == maps.losses.size(),
            kBadShape, "loss maps: expected one for group {}, got {}", group,
            std::ssize(maps.scores) / kLossMapPoints);
  scores_ = std::span(maps.scores).subspan(group * kLossMapPoints, kLossMapPoints);
  losses_ = std::span(maps.losses).subspan(group * kLossMapPoints, kLossMapPoints);
}

double LossMapView::operator()(double score) const {
  if (scores_.empty() || std::isinf(score)) return score;
  const auto above = std::ranges::upper_bound(scores_, score);
  const auto i = static_cast<size_t>(above - scores_.begin());
  if (i == 0) return losses_[0];
  const double x = scores_[i - 1];
  const double y = losses_[i - 1];
  if (above == scores_.end()) return y * (score / x);
  return y + (losses_[i] - y) * ((score - x) / (scores_[i] - x));
}

void CheckLossMaps(const LossMaps& maps, const std::string& what) {
  const int64_t count = std::ssize(maps.scores);
  KVC_CHECK(count > 0 && count % kLossMapPoints == 0 && std::ssize(maps.losses) == count, kBadShape,
            "{}: expected {} scores and losses for each group, got {} and {}", what, kLossMapPoints,
            count, maps.losses.size());
  for (const std::vector<float>* values : {&maps.scores, &maps.losses}) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = (*values)[i];
      KVC_CHECK(std::isfinite(value), kNumeric,
                "{}: expected finite numbers, got NaN or infinity; make the profile anew", what);
      const float before = i % kLossMapPoints == 0 ? 0.0F : (*values)[i - 1];
      KVC_CHECK(
          value >= before, kBadInput,
          "{}: expected scores and losses of 0 or more that never fall, got {} after {}; make "
          "the profile anew",
          what, value, before);
    }
  }
  for (int64_t last = kLossMapPoints - 1; last < count; last += kLossMapPoints) {
    KVC_CHECK(maps.scores[last] > 0.0F, kBadInput,
              "{}: expected a last score above 0, got 0; make the profile anew", what);
  }
}

}  // namespace kvc
