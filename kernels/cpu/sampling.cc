#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace kvc::kernels {
namespace {

int32_t Greedy(std::span<const float> logits) {
  // max_element returns the first of equal elements: the lowest id.
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// The `count` most probable ids, most probable first; of equal logits the lower id.
std::vector<int32_t> MostProbable(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const float left = logits[static_cast<size_t>(a)];
    const float right = logits[static_cast<size_t>(b)];
    return left > right || (left == right && a < b);
  };
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), before);
  ids.resize(static_cast<size_t>(count));
  return ids;
}

}  // namespace

int32_t SampleToken(std::span<const float> logits, const SamplingOptions& options, Rng& rng) {
  KVC_CHECK(!logits.empty(), kBadShape, "sampling: expected at least one logit, got none");
  KVC_CHECK(std::none_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }),
            kNumeric,
            "logits: expected numbers, got NaN; check the model's weights");
  if (options.temperature <= 0.0) {
    return Greedy(logits);
  }
  const auto all = static_cast<int64_t>(logits.size());
  const int64_t count = options.top_k > 0 ? std::min(options.top_k, all) : all;
  const std::vector<int32_t> ids = MostProbable(logits, count);
  // shape: weights [count], not normalised; the largest is 1
  const double largest = logits[static_cast<size_t>(ids[0])];
  if (std::isinf(largest)) {
    return ids[0];
  }
  std::vector<double> weights(ids.size());
  double total = 0.0;
  for (size_t i = 0; i < ids.size(); ++i) {
    weights[i] = std::exp((logits[static_cast<size_t>(ids[i])] - largest) / options.temperature);
    total += weights[i];
  }
  const double mass = std::min(options.top_p, 1.0) * total;
  size_t kept = 0;
  double kept_mass = 0.0;
  do {
    kept_mass += weights[kept++];
  } while (kept < ids.size() && kept_mass < mass);
  double rest = rng.NextDouble() * kept_mass;
  for (size_t i = 0; i < kept; ++i) {
    rest -= weights[i];
    if (rest < 0.0) {
      return ids[i];
    }
  }
  return ids[kept - 1];
}

}  // namespace kvc::kernels
