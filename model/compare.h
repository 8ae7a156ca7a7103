#pragma once
// Comparison of a model with a reference: KL divergence and perplexity on the same windows.

#include <cstdint>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "model/tensor_fwd.h"

namespace kvc::model {

// How far a model is from a reference on the same windows, teacher-forced, no cache compression.
// All means are over the tokens that have a successor: T - 1 of each window.
struct ModelDistance {
  double kld = 0.0;         // mean of KL(reference || model), nats
  double perplexity = 0.0;  // of the model
  double reference_perplexity = 0.0;
  int64_t tokens = 0;
};

// Runs the reference (model/reference_run.h).
[[nodiscard]] ReferenceRun RunReference(const Checkpoint& reference,
                                        const std::vector<std::vector<int32_t>>& windows,
                                        Progress& progress);
// `model` on the reference's windows. Throws kBadShape when the vocabularies differ, kNumeric when
// a logit is not finite.
[[nodiscard]] ModelDistance CompareWith(const ReferenceRun& reference,
                                        const Checkpoint& model,
                                        Progress& progress);
// The same for last hidden states ([T, E] each window) that the caller has.
[[nodiscard]] ModelDistance CompareHidden(const ReferenceRun& reference,
                                          const ModelConfig& config,
                                          const OuterWeights& outer,
                                          const std::vector<torch::Tensor>& hidden,
                                          Progress& progress);
// Both sides at once.
[[nodiscard]] ModelDistance CompareModels(const Checkpoint& reference,
                                          const Checkpoint& model,
                                          const std::vector<std::vector<int32_t>>& windows,
                                          Progress& progress);

}  // namespace kvc::model
