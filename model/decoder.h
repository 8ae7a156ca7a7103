#pragma once
// The decoder in LibTorch: one layer as a function of its weights, with taps on what compression
// needs to see. Autograd works through it, so the streamed calibration pass, QK fine-tuning and
// training from scratch run the same code. Everything is float32.
//
// Letters: N windows, T tokens, E model width, H query heads, G kv heads, D head width, V
// vocabulary.

#include <cstdint>
#include <optional>

#include <torch/types.h>

#include "core/checkpoint/checkpoint.h"

namespace kvc::model {

// Weights of one layer. A tensor is undefined if the family does not have it. Linear weights are
// [out, in].
struct LayerWeights {
  torch::Tensor attn_norm, attn_norm_bias;  // [E]
  torch::Tensor q, q_bias;                  // [H*D, E], [H*D] (thin: kAbsorb, kRopePairs)
  torch::Tensor k, k_bias;                  // [G*D, E], [G*D] (thin: also kLatent)
  torch::Tensor v, v_bias;                  // [G*D, E], [G*D]
  torch::Tensor o, o_bias;                  // [E, H*D], [E]
  torch::Tensor q_norm, k_norm;             // [D]
  torch::Tensor k_rebuild;                  // kLatent: [G*D, max_n R_n]
  torch::Tensor k_reduce, k_reduce_bias;    // kPostRope: [sum_g R_g, D], [sum_g R_g]
  torch::Tensor q_reduce;                   // kPostRope: [sum_g R_g, D]
  torch::Tensor mlp_norm, mlp_norm_bias;    // [E]
  torch::Tensor gate, gate_bias;            // [mlp, E], [mlp]
  torch::Tensor up, up_bias;                // [mlp, E], [mlp]
  torch::Tensor down, down_bias;            // [E, mlp], [E]
};

// Weights outside the layers.
struct OuterWeights {
  torch::Tensor embedding;                    // [V, E]
  torch::Tensor position_embedding;           // [context, E] (GPT-2)
  torch::Tensor final_norm, final_norm_bias;  // [E]
  torch::Tensor lm_head;                      // [V, E]; same storage as embedding when tied
};

[[nodiscard]] LayerWeights LoadLayer(const Checkpoint& checkpoint, int64_t layer);
[[nodiscard]] OuterWeights LoadOuter(const Checkpoint& checkpoint);

// Selects what a layer's forward pass records. Tensors are undefined unless their flag is set.
struct TapRequest {
  bool projections = false;    // input, q_pre_rope, q, k, v
  bool probabilities = false;  // probabilities
  bool attention = false;      // attention
};
struct LayerTaps {
  torch::Tensor input;       // [N, T, E] x: what the projections see (after the norm)
  torch::Tensor q_pre_rope;  // [N, H, T, D] after bias and norm, before rotation
  // q, k and v are as they enter the dot product; with kLatent the keys are rebuilt. In the other
  // thin layouts q and k are as wide as the layer's largest rank, and narrower heads are padded
  // with zeros.
  torch::Tensor q;                // [N, H, T, D]
  torch::Tensor k;                // [N, G, T, D]
  torch::Tensor v;                // [N, G, T, D]
  std::optional<int64_t> window;  // of the layer; set with the projections
  torch::Tensor probabilities;    // [N, H, T, T] softmax rows, causal
  torch::Tensor attention;        // [N, T, H*D] before the output projection
};

// Returns the sum of token and position embedding: ids [N, T] int64 -> [N, T, E].
[[nodiscard]] torch::Tensor Embed(const ModelConfig& config,
                                  const OuterWeights& outer,
                                  const torch::Tensor& ids);
// Runs one decoder layer over whole sequences at positions 0..T-1, causally and within its window:
// hidden [N, T, E] -> [N, T, E]. `taps` may be null.
[[nodiscard]] torch::Tensor LayerForward(const ModelConfig& config,
                                         const LayerWeights& weights,
                                         int64_t layer,
                                         const torch::Tensor& hidden,
                                         const TapRequest& request = {},
                                         LayerTaps* taps = nullptr);
// Applies the final norm and the head: hidden [N, T, E] -> logits [N, T, V].
[[nodiscard]] torch::Tensor Logits(const ModelConfig& config,
                                   const OuterWeights& outer,
                                   const torch::Tensor& hidden);

}  // namespace kvc::model
