#pragma once
// The parts that tuning of a layer and tuning of the whole model share: which windows are trained
// on, in which order, and how large a step of each weight is.

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"

namespace kvc::factorize {

inline constexpr int64_t kCheckEvery = 12;

// Split of the windows 0 .. count-1: the middle one of each kCheckEvery (with few windows the first
// one) is not trained on, but tells whether training helps.
struct TuneSplit {
  std::vector<int64_t> training;
  std::vector<int64_t> checked;
};
[[nodiscard]] TuneSplit SplitWindows(int64_t count);

using TunedMember = torch::Tensor model::LayerWeights::*;

// Returns the matrices of TunedWeights (factorize/tuned_weights.h) that the layer has; with full
// keys, q and k.
[[nodiscard]] std::vector<TunedMember> TrainedMembers(const model::LayerWeights& weights);

// Returns the change of each element of a matrix in a step at rate 1, as a tensor of its shape:
// rms(W diag(s)) / s_j, where s_j is the root mean square of the matrix's input j. A rate thus
// means the same in every layer and model and however a factor is scaled, and inputs of large
// variance do not dominate. `x` [rows, E] is what the layer's projections see.
[[nodiscard]] torch::Tensor StepSizes(const ModelConfig& config,
                                      int64_t layer,
                                      const model::LayerWeights& weights,
                                      TunedMember member,
                                      const torch::Tensor& x);

}  // namespace kvc::factorize
