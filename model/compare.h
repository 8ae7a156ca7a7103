#pragma once
// Comparison of a model with a reference: KL divergence and perplexity on the same windows.

#include <cstdint>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "model/tensor_fwd.h"

namespace kvc::model {

// Distance of a model from a reference on the same windows, teacher-forced, without cache
// compression. All means are over the tokens that have a successor: T - 1 of each window.
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
// Compares `model` with the reference on its windows. Throws kBadShape when the vocabularies
// differ, kNumeric when a logit is not finite.
[[nodiscard]] ModelDistance CompareWith(const ReferenceRun& reference,
                                        const Checkpoint& model,
                                        Progress& progress);
// Does the same for last hidden states ([T, E] per window) that the caller already has. Collective
// over the reference's ranks.
[[nodiscard]] ModelDistance CompareHidden(const ReferenceRun& reference,
                                          const ModelConfig& config,
                                          const OuterWeights& outer,
                                          const std::vector<torch::Tensor>& hidden,
                                          Progress& progress);
// Runs the reference and compares the model with it.
[[nodiscard]] ModelDistance CompareModels(const Checkpoint& reference,
                                          const Checkpoint& model,
                                          const std::vector<std::vector<int32_t>>& windows,
                                          Progress& progress);

}  // namespace kvc::model
