#include "profile/loss_map_fit.h"

#include <algorithm>
#include <limits>

#include "core/cache/loss_map.h"
#include "solver/isotonic.h"

namespace kvc::profile {
namespace {

using solver::IsotonicBlock;

// Means of kLossMapTokens or more neighbours each.
std::vector<IsotonicBlock> Neighbours(const std::vector<ScoredLoss>& sorted) {
  std::vector<IsotonicBlock> means;
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = std::min(begin + kLossMapTokens, sorted.size());
    while (end < sorted.size() && sorted[end].score == sorted[end - 1].score) ++end;
    if (sorted.size() - end < kLossMapTokens) end = sorted.size();
    IsotonicBlock mean;
    for (size_t i = begin; i < end; ++i) {
      mean.x += sorted[i].score;
      mean.y += sorted[i].loss;
    }
    mean.weight = static_cast<double>(end - begin);
    mean.x /= mean.weight;
    mean.y /= mean.weight;
    means.push_back(mean);
    begin = end;
  }
  return means;
}

// Pools the two neighbours whose losses have the least ratio.
void PoolNearest(std::vector<IsotonicBlock>& blocks) {
  size_t nearest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {
    const double ratio = blocks[i + 1].y / blocks[i].y;  // infinity for a loss of 0
    if (ratio < least) {
      least = ratio;
      nearest = i;
    }
  }
  const IsotonicBlock& a = blocks[nearest];
  const IsotonicBlock& b = blocks[nearest + 1];
  const double weight = a.weight + b.weight;
  blocks[nearest] = {(a.x * a.weight + b.x * b.weight) / weight,
                     (a.y * a.weight + b.y * b.weight) / weight, weight};
  blocks.erase(blocks.begin() + static_cast<int64_t>(nearest) + 1);
}

}  // namespace

LossMapPointsOfGroup FitLossMap(std::vector<ScoredLoss> tokens) {
  std::ranges::sort(tokens, [](const ScoredLoss& a, const ScoredLoss& b) {
    return a.score != b.score ? a.score < b.score : a.loss < b.loss;
  });
  std::vector<IsotonicBlock> blocks = solver::FitIsotonic(Neighbours(tokens));
  while (std::ssize(blocks) > kLossMapPoints) PoolNearest(blocks);
  LossMapPointsOfGroup map;
  for (const IsotonicBlock& block : blocks) {
    map.scores.push_back(static_cast<float>(block.x));
    map.losses.push_back(static_cast<float>(block.y));
  }
  if (map.scores.empty() || map.scores.back() <= 0.0F) {
    map.scores = {0.0F, 1.0F};
    map.losses = {0.0F, 1.0F};
  }
  map.scores.resize(kLossMapPoints, map.scores.back());
  map.losses.resize(kLossMapPoints, map.losses.back());
  return map;
}

}  // namespace kvc::profile
