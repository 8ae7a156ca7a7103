#include "solver/tier_allocator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/error.h"
#include "solver/narrow_choices.h"
#include "solver/token_hull.h"

namespace kvc::solver {
namespace {

// Slopes fall into buckets by the upper half of their bits: a bucket is 0.8 % wide.
constexpr int kBucketShift = 16;
constexpr int64_t kBuckets = (int64_t{1} << (31 - kBucketShift)) + 1;
// Fewer tokens are sorted without buckets.
constexpr int64_t kFewTokens = 2048;
// The tokens whose tiers are chosen again at the end: enough for a gap below a millionth, few
// enough that their choice takes less time than the rest.
constexpr int64_t kLeastNarrow = 32;
constexpr int64_t kMostNarrow = 256;
constexpr int64_t kTokensPerNarrow = 64;

// One step along the hull of a token, to `vertex`.
struct Increment {
  float slope = 0.0F;
  int32_t group = 0;
  int64_t token = 0;  // over all groups
  int32_t vertex = 0;
};

class Allocator {
 public:
  explicit Allocator(std::span<const TierGroup> groups) : groups_(groups) {
    for (const TierGroup& group : groups) {
      tiers_.emplace_back(group, tiers_.size());
      first_.push_back(num_tokens_);
      num_tokens_ += group.num_tokens;
    }
    narrow_tokens_ = std::clamp(num_tokens_ / kTokensPerNarrow, kLeastNarrow, kMostNarrow);
  }

  TierAllocation Run(int64_t budget) {
    SumIncrements();
    KVC_CHECK(least_cost_ <= budget, kInfeasible,
              "tiers: expected a budget of at least {} bytes, got {}; raise it to the smallest "
              "possible one",
              least_cost_, budget);
    unit_ = CostUnit(tiers_);
    room_ = (budget - least_cost_) / unit_ * unit_;
    choice_.resize(static_cast<size_t>(num_tokens_));
    FindRange();
    TakeSteepest();
    std::ranges::sort(sorted_, [](const Increment& a, const Increment& b) {
      if (a.slope != b.slope) return a.slope > b.slope;
      return a.token != b.token ? a.token < b.token : a.vertex < b.vertex;
    });
    const int64_t split = TakeSorted();
    if (split < std::ssize(sorted_)) SpendRest(split);
    return Finish();
  }

 private:
  // Calls visit(group, token, hull) for every token.
  template <class Visit>
  void ForTokens(const Visit& visit) const {
    TokenHull hull;
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (int64_t i = 0; i < groups_[g].num_tokens; ++i) {
        BuildHull(LossesOf(g, i), tiers_[g], hull);
        visit(g, first_[g] + i, hull);
      }
    }
  }

  [[nodiscard]] const float* LossesOf(size_t g, int64_t i) const {
    return groups_[g].losses.data() + i * tiers_[g].count;
  }

  static int64_t BucketOf(float slope) { return std::bit_cast<uint32_t>(slope) >> kBucketShift; }

  void SumIncrements() {
    const bool few = num_tokens_ <= kFewTokens;
    if (!few) {
      bucket_costs_.assign(kBuckets, 0);
      bucket_counts_.assign(kBuckets, 0);
    }
    ForTokens([&](size_t g, int64_t token, const TokenHull& hull) {
      KVC_CHECK(hull.count > 0, kNumeric,
                "tiers: token {}: expected a tier that it may take, got none", token);
      const std::array<int64_t, kMaxTiers>& costs = tiers_[g].costs;
      least_cost_ += costs[hull.column[0]];
      if (few) return;
      for (int v = 1; v < hull.count; ++v) {
        const int64_t bucket = BucketOf(hull.slope[v]);
        bucket_costs_[bucket] += costs[hull.column[v]] - costs[hull.column[v - 1]];
        ++bucket_counts_[bucket];
      }
    });
  }

  // The buckets whose increments are sorted: the one in which the budget ends and enough about it.
  void FindRange() {
    if (bucket_costs_.empty()) return;
    int64_t bucket = kBuckets - 1;
    for (int64_t left = room_; bucket > 0 && bucket_costs_[bucket] <= left; --bucket) {
      left -= bucket_costs_[bucket];
    }
    low_ = bucket;
    high_ = bucket;
    int64_t above = 0;
    // On both sides, so that the narrowest choices are among what is sorted.
    while (high_ + 1 < kBuckets && above < narrow_tokens_) above += bucket_counts_[++high_];
    int64_t below = 0;
    while (low_ > 0 && below < narrow_tokens_) below += bucket_counts_[--low_];
  }

  // Takes the increments that are steeper than the range, and collects those in it.
  void TakeSteepest() {
    ForTokens([&](size_t g, int64_t token, const TokenHull& hull) {
      const std::array<int64_t, kMaxTiers>& costs = tiers_[g].costs;
      int at = 0;
      for (int v = 1; v < hull.count; ++v) {
        const int64_t bucket = BucketOf(hull.slope[v]);
        if (bucket > high_) {
          at = v;
        } else if (bucket >= low_) {
          sorted_.push_back({hull.slope[v], static_cast<int32_t>(g), token, v});
        }
      }
      room_ -= costs[hull.column[at]] - costs[hull.column[0]];
      choice_[token] = hull.column[at];
    });
  }

  // Takes sorted increments until one does not fit. Returns its index, or their number.
  int64_t TakeSorted() {
    TokenHull hull;
    for (int64_t i = 0; i < std::ssize(sorted_); ++i) {
      const Increment& increment = sorted_[i];
      const auto g = static_cast<size_t>(increment.group);
      BuildHull(LossesOf(g, increment.token - first_[g]), tiers_[g], hull);
      const uint8_t to = hull.column[increment.vertex];
      const int64_t cost = tiers_[g].costs[to] - tiers_[g].costs[choice_[increment.token]];
      if (cost > room_) {
        const float* losses = LossesOf(g, increment.token - first_[g]);
        lambda_ = (static_cast<double>(losses[choice_[increment.token]]) - losses[to]) /
                  static_cast<double>(cost);
        return i;
      }
      room_ -= cost;
      choice_[increment.token] = to;
    }
    return std::ssize(sorted_);
  }

  // Chooses the tiers of the tokens that lambda decides most narrowly again, with the bytes left.
  void SpendRest(int64_t split) {
    std::vector<NarrowToken> tokens;
    int64_t above = split - 1;
    int64_t below = split;
    const auto add = [&](const Increment& increment) {
      for (const NarrowToken& token : tokens) {
        if (token.token == increment.token) return;
      }
      const auto g = static_cast<size_t>(increment.group);
      tokens.push_back({increment.token, LossesOf(g, increment.token - first_[g]), &tiers_[g],
                        choice_[increment.token]});
    };
    while (std::ssize(tokens) < narrow_tokens_ && (above >= 0 || below < std::ssize(sorted_))) {
      if (below < std::ssize(sorted_)) add(sorted_[below++]);
      if (above >= 0) add(sorted_[above--]);
    }
    RefineChoices(lambda_, unit_, room_, tokens);
    for (const NarrowToken& token : tokens) choice_[token.token] = token.choice;
  }

  TierAllocation Finish() {
    TierAllocation result;
    int64_t limit = 0;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const TierColumns& tiers = tiers_[g];
      for (int64_t i = 0; i < groups_[g].num_tokens; ++i) {
        const float* losses = LossesOf(g, i);
        const uint8_t chosen = choice_[first_[g] + i];
        result.objective += static_cast<double>(losses[chosen]);
        result.cost += tiers.costs[chosen];
        double least = std::numeric_limits<double>::infinity();
        for (int64_t t = 0; t < tiers.count; ++t) {
          least = std::min(least, losses[t] + lambda_ * static_cast<double>(tiers.costs[t]));
        }
        result.bound += least;
      }
    }
    limit = result.cost + room_;
    // A lower bound stays valid when lowered: rounding must not lift it above what was reached.
    result.bound = std::min(result.bound - lambda_ * static_cast<double>(limit), result.objective);
    result.lambda = lambda_;
    result.choice = std::move(choice_);
    return result;
  }

  std::span<const TierGroup> groups_;
  std::vector<TierColumns> tiers_;
  std::vector<int64_t> first_;  // the first token of each group
  int64_t num_tokens_ = 0;
  int64_t narrow_tokens_ = 0;
  int64_t least_cost_ = 0;
  int64_t unit_ = 1;             // all differences of costs are multiples of it
  int64_t room_ = 0;             // bytes left, a multiple of unit_
  double lambda_ = 0.0;          // slope of the increment that did not fit
  std::vector<uint8_t> choice_;  // [tokens]
  std::vector<int64_t> bucket_costs_, bucket_counts_;  // empty for few tokens
  int64_t low_ = 0;                                    // buckets that are sorted
  int64_t high_ = kBuckets;
  std::vector<Increment> sorted_;
};

}  // namespace

TierAllocation AllocateTiers(std::span<const TierGroup> groups, int64_t budget) {
  return Allocator(groups).Run(budget);
}

}  // namespace kvc::solver
