#pragma once
// The matrices of the query and key side that tuning trains.

#include <span>
#include <vector>

#include "factorize/layer_factors.h"
#include "model/tensor_fwd.h"

namespace kvc::factorize {

// One of them: where a layer of the decoder and where a layer's factors hold it. A layout has some
// of them, of the others nothing is defined. Biases and norms are not trained.
struct TunedWeight {
  const char* name;
  torch::Tensor model::LayerWeights::*weight;
  std::vector<float> LayerFactors::*values;
};

// All of them, for the life of the process.
[[nodiscard]] std::span<const TunedWeight> TunedWeights();

}  // namespace kvc::factorize
