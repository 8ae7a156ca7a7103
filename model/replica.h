#pragma once
// A decoder in training, whose weights are views of one flat buffer.

#include <vector>

#include <torch/types.h>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "model/parameters.h"

namespace kvc::model {

// Leaf tensors over one flat buffer of values, which replicas share, and one flat buffer of
// gradients, which belongs to this replica. The backward pass adds to the gradients.
class Replica {
 public:
  Replica(const ModelConfig& config, const ParameterList& list, const torch::Tensor& values);

  // Runs the decoder: ids [N, T] -> logits [N, T, V].
  [[nodiscard]] torch::Tensor Forward(const torch::Tensor& ids) const;
  [[nodiscard]] torch::Tensor& gradients() { return gradients_; }  // [count]

 private:
  const ModelConfig& config_;
  std::vector<LayerWeights> layers_;
  OuterWeights outer_;
  torch::Tensor gradients_;
};

}  // namespace kvc::model
