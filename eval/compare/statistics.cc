#include "eval/compare/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"

namespace kvc::eval {

double LogSumExp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(double{logit} - double{largest});
  return double{largest} + std::log(sum);
}

double NegativeLogLikelihood(std::span<const float> logits, int32_t target) {
  const double nll = LogSumExp(logits) - double{logits[target]};
  KVC_CHECK(std::isfinite(nll), kNumeric, "logits: expected finite numbers, got a NaN or infinity");
  return nll;
}

double KlDivergence(std::span<const float> reference, std::span<const float> model) {
  const double reference_log_sum = LogSumExp(reference);
  const double model_log_sum = LogSumExp(model);
  double sum = 0.0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = double{reference[i]} - reference_log_sum;
    sum += std::exp(log_p) * (log_p - (double{model[i]} - model_log_sum));
  }
  KVC_CHECK(std::isfinite(sum), kNumeric, "logits: expected finite numbers, got a NaN or infinity");
  return std::max(0.0, sum);
}

SampledMean MeanOfSamples(std::span<const double> sums, std::span<const int64_t> counts) {
  const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
  const auto tokens = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  SampledMean result{total / static_cast<double>(tokens), 0.0};
  if (sums.size() < 2) return result;
  double squares = 0.0;
  for (size_t s = 0; s < sums.size(); ++s) {
    const double difference = sums[s] / static_cast<double>(counts[s]) - result.mean;
    squares += difference * difference;
  }
  const auto n = static_cast<double>(sums.size());
  result.standard_error = std::sqrt(squares / (n - 1.0) / n);
  return result;
}

int32_t ArgMax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

double Quantile(std::vector<double>& values, double q) {
  KVC_CHECK(!values.empty(), kInternal, "quantile of nothing");
  const auto rank = static_cast<int64_t>(std::ceil(q * static_cast<double>(values.size()))) - 1;
  const auto at = values.begin() + std::max<int64_t>(rank, 0);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace kvc::eval
