#pragma once
// The matrices of the query and key side that tuning trains.

#include <span>
#include <vector>

#include "factorize/layer_factors.h"
#include "model/tensor_fwd.h"

namespace kvc::factorize {

// One trained matrix: its member in a decoder layer and in a layer's factors. A layout has some of
// the matrices; the others are undefined. Biases and norms are not trained.
struct TunedWeight {
  const char* name;
  torch::Tensor model::LayerWeights::*weight;
  std::vector<float> LayerFactors::*values;
};

// Returns all of them; they live as long as the process.
[[nodiscard]] std::span<const TunedWeight> TunedWeights();

}  // namespace kvc::factorize
