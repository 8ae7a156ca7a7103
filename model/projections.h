#pragma once
// The projections from a layer's hidden states to the operands of its dot products, as separate
// functions for code that trains or measures only the query and key side. LayerForward
// (model/decoder.h) runs the same functions. Autograd works through them.

#include <cstdint>
#include <optional>

#include <torch/types.h>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"

namespace kvc::model {

struct Projections {
  torch::Tensor q_pre_rope;  // [N, H, T, D]
  torch::Tensor q;           // [N, H, T, D_k] as it enters the dot product, without the logit scale
  torch::Tensor k;           // [N, G, T, D_k] likewise
  torch::Tensor v;           // [N, G, T, D]
  std::optional<int64_t> window;  // of the layer (ModelConfig::window)
};

// Applies the norm before the attention: hidden [N, T, E] -> x [N, T, E].
[[nodiscard]] torch::Tensor AttentionInput(const ModelConfig& config,
                                           const LayerWeights& weights,
                                           const torch::Tensor& hidden);
// Returns queries, keys and values of x [N, T, E] at positions first..first+T-1, after the biases,
// norms, rebuild and rotation that the family and its key layout have. Computes no values if
// weights.v is undefined. Throws kUnsupported for a layout that the decoder does not run.
[[nodiscard]] Projections Project(const ModelConfig& config,
                                  const LayerWeights& weights,
                                  int64_t layer,
                                  const torch::Tensor& x,
                                  int64_t first = 0);

// Returns the first key that any query from token `first` on sees.
[[nodiscard]] int64_t FirstSeenKey(int64_t first, std::optional<int64_t> window);
// Adds -inf in place to the logits [..., C, J] of C consecutive queries over J consecutive keys,
// the last query's own key last, where a query does not see a key: those of later tokens, and with
// a window those of all tokens but the query's last `window`.
void HideUnseenKeys(const torch::Tensor& logits, std::optional<int64_t> window);

}  // namespace kvc::model
