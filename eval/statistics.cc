#include "eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

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
