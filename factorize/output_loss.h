#pragma once
// The loss at the model's output that --tune global minimises, and its gradient by the last hidden
// states. Both models' logits are computed again for a few tokens at a time: neither the teacher's
// nor the student's are ever in memory for a whole window.

#include <cstdint>
#include <string_view>
#include <vector>

#include <torch/types.h>

#include "factorize/tune_options.h"
#include "model/decoder.h"

namespace kvc::factorize {

// A window and the full model's output for it.
struct OutputTarget {
  const std::vector<int32_t>& ids;  // [T], two at least
  const torch::Tensor& hidden;      // [T, E] its last hidden states; used by kKl only
};

struct OutputError {
  double loss = 0.0;     // mean over the T - 1 tokens that have a successor, nats
  torch::Tensor hidden;  // [T, E] gradient of `loss`; undefined when not asked for
};

// Returns the loss of one window. kKl is KL(full model || model) of the next token's distribution,
// kCe is -log p(next token). `hidden` [T, E] is the model's last hidden states, before the final
// norm, which `outer` holds.
[[nodiscard]] OutputError MeasureOutput(const ModelConfig& config,
                                        const model::OuterWeights& outer,
                                        const torch::Tensor& hidden,
                                        const OutputTarget& target,
                                        OutputLoss loss,
                                        bool with_gradient);

}  // namespace kvc::factorize
