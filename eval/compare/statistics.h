#pragma once
// Numbers computed from rows of logits, in double precision.

#include <cstdint>
#include <span>
#include <vector>

namespace kvc::eval {

// Returns log sum exp, with the maximum subtracted.
[[nodiscard]] double LogSumExp(std::span<const float> logits);
// Returns -log softmax(logits)[target]. Throws kNumeric when the logits hold a NaN.
[[nodiscard]] double NegativeLogLikelihood(std::span<const float> logits, int32_t target);
// Returns KL(softmax(reference) || softmax(model)), nats, >= 0 up to rounding.
[[nodiscard]] double KlDivergence(std::span<const float> reference, std::span<const float> model);
// Mean of a quantity of tokens that come in samples (windows of text, prompts). The tokens of a
// sample are not independent of each other; samples are.
struct SampledMean {
  double mean = 0.0;            // over all tokens
  double standard_error = 0.0;  // of the mean, from the spread between samples; 0 with one sample
};
// Returns the mean. sums, counts: [samples], no count 0.
[[nodiscard]] SampledMean MeanOfSamples(std::span<const double> sums,
                                        std::span<const int64_t> counts);
// Returns the lowest index of the largest value.
[[nodiscard]] int32_t ArgMax(std::span<const float> values);
// Returns the smallest element with at least the share `q` of the elements at or below it; q in (0,
// 1]. `values` must not be empty; it is reordered.
[[nodiscard]] double Quantile(std::vector<double>& values, double q);

}  // namespace kvc::eval
