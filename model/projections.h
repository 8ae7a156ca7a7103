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

// Parts of Project where keys are latents (kLatent): keys before norm and rotation of latents
// [N, T, sum_n R_n], with their bias [N, T, G*D]; and keys [N, G, T, D] as they enter the dot
// product, of tokens at positions from `first` on.
[[nodiscard]] torch::Tensor KeysBeforeNorm(const ModelConfig& config,
                                           const LayerWeights& weights,
                                           int64_t layer,
                                           const torch::Tensor& latents);
[[nodiscard]] torch::Tensor KeysOfLatents(const ModelConfig& config,
                                          const LayerWeights& weights,
                                          int64_t layer,
                                          const torch::Tensor& latents,
                                          int64_t first = 0);
// Returns x R_t of rows x [N, heads, T, D] at positions from `first` on, where k R_t^T is what the
// layer's rotation makes of a row k (the attention factor included): a query drawn back to keys
// before their rotation. Rows as they are in a layer without one.
[[nodiscard]] torch::Tensor RotateBack(const ModelConfig& config,
                                       int64_t layer,
                                       const torch::Tensor& x,
                                       int64_t first);

// Returns the first key that any query from token `first` on sees.
[[nodiscard]] int64_t FirstSeenKey(int64_t first, std::optional<int64_t> window);
// Adds -inf in place to the logits [..., C, J] of C consecutive queries over J consecutive keys,
// the last query's own key last, where a query does not see a key: those of later tokens, and with
// a window those of all tokens but the query's last `window`.
void HideUnseenKeys(const torch::Tensor& logits, std::optional<int64_t> window);

}  // namespace kvc::model
