#pragma once
// What stands between a layer's hidden states and its dot products, as functions of their own: for
// code that trains or measures the query and key side alone. LayerForward (model/decoder.h) runs
// the same ones. Autograd works through them.

#include <cstdint>

#include <torch/types.h>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"

namespace kvc::model {

struct Projections {
  torch::Tensor q_pre_rope;  // [N, H, T, D]
  torch::Tensor q;           // [N, H, T, D_k] as it enters the dot product, without the logit scale
  torch::Tensor k;           // [N, G, T, D_k] likewise
  torch::Tensor v;           // [N, G, T, D]
};

// The norm in front of the attention: hidden [N, T, E] -> x [N, T, E].
[[nodiscard]] torch::Tensor AttentionInput(const ModelConfig& config,
                                           const LayerWeights& weights,
                                           const torch::Tensor& hidden);
// Queries, keys and values of x [N, T, E] at positions 0..T-1, after biases, norms, rebuild and
// rotation, where the family and its key layout have them. Throws kUnsupported for a layout that
// the decoder does not run. Undefined weights.v: no values.
[[nodiscard]] Projections Project(const ModelConfig& config,
                                  const LayerWeights& weights,
                                  int64_t layer,
                                  const torch::Tensor& x);

}  // namespace kvc::model
