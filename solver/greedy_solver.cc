#include "solver/greedy_solver.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/error.h"

namespace kvc::solver {
namespace {

// One step along the hull of a curve, from the previous vertex to `target`.
struct Increment {
  double slope = 0.0;  // loss saved per cost; non-increasing along a curve
  int32_t curve = 0;
  int32_t target = 0;  // index of the point that the step ends at
};

std::vector<int64_t> HullOfCurve(const Curve& curve, size_t index) {
  KVC_CHECK(!curve.empty(), kBadShape, "curve {}: expected a point or more, got none", index);
  try {
    return LowerHull(curve);
  } catch (const Error& error) {
    throw Error(error.kind(), "curve " + std::to_string(index) + ": " + error.what());
  }
}

// The increments of all hulls in curve order.
std::vector<Increment> CollectIncrements(std::span<const Curve> curves) {
  std::vector<Increment> increments;
  increments.reserve(curves.size() * 3);
  for (size_t c = 0; c < curves.size(); ++c) {
    const std::vector<int64_t> hull = HullOfCurve(curves[c], c);
    double limit = std::numeric_limits<double>::infinity();
    for (size_t i = 1; i < hull.size(); ++i) {
      const CurvePoint& from = curves[c][hull[i - 1]];
      const CurvePoint& to = curves[c][hull[i]];
      // Rounding of the quotient must not put a step before its predecessor.
      limit = std::min(limit, (from.loss - to.loss) / (to.cost - from.cost));
      increments.push_back({limit, static_cast<int32_t>(c), static_cast<int32_t>(hull[i])});
    }
  }
  return increments;
}

// Sorts by falling slope. It is a stable radix sort from the least significant digit: equal slopes
// stay in curve order, and 48K increments take a fraction of the time of a comparison sort.
void SortBySlope(std::vector<Increment>& increments) {
  constexpr int kBits = 11;
  constexpr uint64_t kMask = (1U << kBits) - 1;
  // Slopes are non-negative, so their bit patterns sort as they do; inverted: descending.
  const auto digit = [](const Increment& increment, int shift) {
    return (~std::bit_cast<uint64_t>(increment.slope) >> shift) & kMask;
  };
  std::vector<Increment> sorted(increments.size());
  for (int shift = 0; shift < 64; shift += kBits) {
    std::array<size_t, kMask + 1> counts{};
    for (const Increment& increment : increments) ++counts[digit(increment, shift)];
    if (std::ranges::count(counts, increments.size()) == 1) continue;  // all share this digit
    size_t begin = 0;
    for (size_t& count : counts) begin += std::exchange(count, begin);
    for (const Increment& increment : increments) {
      sorted[counts[digit(increment, shift)]++] = increment;
    }
    increments.swap(sorted);
  }
}

// A growing allocation: the point taken on each curve, and the rest of the budget.
class Filler {
 public:
  Filler(std::span<const Curve> curves, double budget)
      : curves_(curves), budget_(budget), choice_(curves.size(), 0), closed_(curves.size(), 0) {
    for (const Curve& curve : curves) {
      cost_ += curve.front().cost;
      loss_ += curve.front().loss;
    }
  }

  [[nodiscard]] double cost() const { return cost_; }
  [[nodiscard]] double loss() const { return loss_; }
  [[nodiscard]] double left() const { return budget_ - cost_; }
  [[nodiscard]] const CurvePoint& Current(int32_t curve) const {
    return curves_[curve][choice_[curve]];
  }
  [[nodiscard]] bool Fits(int32_t curve, int64_t target) const {
    return cost_ + (curves_[curve][target].cost - Current(curve).cost) <= budget_;
  }
  void Take(int32_t curve, int64_t target) {
    cost_ += curves_[curve][target].cost - Current(curve).cost;
    loss_ += curves_[curve][target].loss - Current(curve).loss;
    choice_[curve] = target;
  }

  // The loss that the LP relaxation still saves by the part of `step` that fits.
  [[nodiscard]] double SplitSaving(const Increment& step) const {
    const CurvePoint& from = Current(step.curve);
    const CurvePoint& to = curves_[step.curve][step.target];
    return (from.loss - to.loss) * (left() / (to.cost - from.cost));
  }

  // Takes `step` when it fits. Otherwise takes the best point before its end that fits, on the hull
  // or not, and closes the curve.
  void TakeWhatFits(const Increment& step) {
    if (closed_[step.curve] != 0) return;
    if (Fits(step.curve, step.target)) {
      Take(step.curve, step.target);
      return;
    }
    closed_[step.curve] = 1;
    const int64_t from = choice_[step.curve];
    int64_t best = from;
    for (int64_t i = from + 1; i < step.target && Fits(step.curve, i); ++i) {
      if (curves_[step.curve][i].loss < curves_[step.curve][best].loss) best = i;
    }
    if (best != from) Take(step.curve, best);
  }

  // Sums again in curve order, without the rounding error of the running sums.
  [[nodiscard]] Allocation Finish() && {
    Allocation result;
    result.choice = std::move(choice_);
    for (size_t c = 0; c < curves_.size(); ++c) {
      result.objective += curves_[c][result.choice[c]].loss;
      result.cost += curves_[c][result.choice[c]].cost;
    }
    return result;
  }

 private:
  std::span<const Curve> curves_;
  double budget_;
  double cost_ = 0.0;
  double loss_ = 0.0;
  std::vector<int64_t> choice_;
  std::vector<char> closed_;  // curves whose next step did not fit
};

}  // namespace

Allocation SolveGreedy(std::span<const Curve> curves, double budget) {
  KVC_CHECK(!std::isnan(budget), kNumeric, "budget: expected a number, got NaN");
  std::vector<Increment> increments = CollectIncrements(curves);
  Filler filler(curves, budget);
  KVC_CHECK(filler.cost() <= budget, kInfeasible,
            "budget: expected at least {}, got {}; raise it to the smallest possible one",
            filler.cost(), budget);
  SortBySlope(increments);

  size_t next = 0;
  while (next < increments.size() && filler.Fits(increments[next].curve, increments[next].target)) {
    filler.Take(increments[next].curve, increments[next].target);
    ++next;
  }
  const bool is_split = next < increments.size();
  const double bound = is_split ? filler.loss() - filler.SplitSaving(increments[next]) : 0.0;
  for (; next < increments.size(); ++next) filler.TakeWhatFits(increments[next]);

  Allocation result = std::move(filler).Finish();
  // Without a split every curve is at its best. With one, rounding must not lift the bound above
  // what was reached: a lower bound stays valid when lowered.
  result.bound = is_split ? std::min(bound, result.objective) : result.objective;
  return result;
}

}  // namespace kvc::solver
