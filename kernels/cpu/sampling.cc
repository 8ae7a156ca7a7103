#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace kvc::kernels {
namespace {

int32_t Greedy(std::span<const float> logits) {
  // max_element returns the first of equal elements: the lowest id.
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// The ids by falling probability, the lower id first among equal logits. Sorts only as far as
// asked.
class ByProbability {
 public:
  explicit ByProbability(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  int32_t operator[](size_t rank) {
    if (rank >= sorted_) {
      const size_t end = std::min(ids_.size(), std::max<size_t>(64, 4 * rank));
      const auto begin = ids_.begin() + static_cast<int64_t>(sorted_);
      const auto middle = ids_.begin() + static_cast<int64_t>(end);
      std::partial_sort(begin, middle, ids_.end(), [this](int32_t a, int32_t b) {
        const float left = logits_[static_cast<size_t>(a)];
        const float right = logits_[static_cast<size_t>(b)];
        return left > right || (left == right && a < b);
      });
      sorted_ = end;
    }
    return ids_[rank];
  }

 private:
  std::span<const float> logits_;
  std::vector<int32_t> ids_;
  size_t sorted_ = 0;
};

}  // namespace

int32_t SampleToken(std::span<const float> logits, const SamplingOptions& options, Rng& rng) {
  KVC_CHECK(!logits.empty(), kBadShape, "sampling: expected at least one logit, got none");
  KVC_CHECK(std::none_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }),
            kNumeric, "logits: expected numbers, got NaN; check the model's weights");
  if (options.temperature <= 0.0) {
    return Greedy(logits);
  }
  const float largest = *std::max_element(logits.begin(), logits.end());
  if (std::isinf(largest)) {
    return Greedy(logits);
  }
  // Not normalised: the largest weight is 1.
  const auto weight = [&](float logit) {
    return std::exp((static_cast<double>(logit) - largest) / options.temperature);
  };
  const auto weight_of = [&](int32_t id) { return weight(logits[static_cast<size_t>(id)]); };
  const size_t count = options.top_k > 0
                           ? std::min(static_cast<size_t>(options.top_k), logits.size())
                           : logits.size();
  ByProbability order(logits);
  double total = 0.0;
  for (size_t i = 0; i < count; ++i) {
    total += count == logits.size() ? weight(logits[i]) : weight_of(order[i]);
  }
  const bool sorted = count < logits.size() || options.top_p < 1.0;
  const double mass = std::min(options.top_p, 1.0) * total;
  size_t kept = sorted ? 0 : count;
  double kept_mass = sorted ? 0.0 : total;
  while (sorted && kept < count && (kept == 0 || kept_mass < mass)) {
    kept_mass += weight_of(order[kept++]);
  }
  double rest = rng.NextDouble() * kept_mass;
  int32_t last = 0;
  for (size_t i = 0; i < kept; ++i) {
    const int32_t id = sorted ? order[i] : static_cast<int32_t>(i);
    const double w = weight_of(id);
    last = w > 0.0 ? id : last;
    rest -= w;
    if (rest < 0.0) {
      return id;
    }
  }
  return last;  // rounding has left a rest
}

}  // namespace kvc::kernels
