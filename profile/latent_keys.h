#pragma once
// Latents of several kv heads as a cache with tiers in few bits has them: their rows, and what an
// error of one costs.
//
// A key is k_g = rope(norm(B_g c + b_g)). An error dc of token j's latent moves the keys of all
// heads of its group at once, before their rotation; the metric of profile/layer_grams.h is then
//
//   M = sum over g of B_g^T P_g B_g
//   P_g = sum over h of E_i [ sum_j w_hij N_gj^T (R_j^T q_i)(R_j^T q_i)^T N_gj scale^2 / r_i ]
//
// with the weights w of model/logit_weights.h, the rotation R_j of position j and the derivative
// N_gj of the norm (of a norm over all heads: within the head, its scale alone).

#include <cstdint>

#include <torch/types.h>

#include "core/cache/tier_list.h"
#include "core/checkpoint/model_config.h"
#include "model/decoder.h"

namespace kvc::profile {

// Tells whether keys are latents which a tier keeps in few bits, and which so need a basis.
[[nodiscard]] bool LatentsInBits(const ModelConfig& config, const NamedTiers& tiers);

// Returns the latents of x [1, T, E]: [n, T, max_n R_n], narrower ones padded with zeros.
[[nodiscard]] torch::Tensor LatentRows(const ModelConfig& config,
                                       const model::LayerWeights& weights,
                                       int64_t layer,
                                       const torch::Tensor& x);

// Returns the keys [G, T, D] of latents [n, T, max_n R_n] at positions first, first + 1, ...
[[nodiscard]] torch::Tensor KeysOfLatents(const ModelConfig& config,
                                          const model::LayerWeights& weights,
                                          int64_t layer,
                                          const torch::Tensor& latents,
                                          int64_t first);

// What the horizon's queries see of a head's tokens.
struct HeadView {
  torch::Tensor queries;  // [H/G, Q, D] of the last Q tokens
  torch::Tensor weights;  // [H/G, Q, T]: w, times the weight of the query's squared error
  double scale = 1.0;
};

// Returns P_g of kv head g [D, D], double, for the tokens from `sinks` on of x [1, T, E].
[[nodiscard]] torch::Tensor KeyMetricBeforeRotation(const ModelConfig& config,
                                                    const model::LayerWeights& weights,
                                                    int64_t layer,
                                                    const torch::Tensor& x,
                                                    int64_t g,
                                                    int64_t sinks,
                                                    const HeadView& view);

// Returns M [n, max_n R_n, max_n R_n] from P [G, D, D], double.
[[nodiscard]] torch::Tensor LatentMetric(const ModelConfig& config,
                                         const model::LayerWeights& weights,
                                         int64_t layer,
                                         const torch::Tensor& heads);

}  // namespace kvc::profile
