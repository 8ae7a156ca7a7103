#pragma once
// Weights of errors in logits: how far the attention's output moves, as the residual stream sees
// it, when one logit does. Thin keys (factorize/error_weights.h) and the bases of a cache
// (profile/basis_grams.h) are measured by them.

#include <torch/types.h>

namespace kvc::model {

// Returns w [h, Q, T] for h query heads that share their values:
//
//   w_it = |d (o_i W_O^T) / d logit_it|^2 = a_it^2 (v_t - o_i) M (v_t - o_i)^T,   M = W_O^T W_O
//
// attention a [h, Q, T], values v [T, D], output o [h, Q, D], grams M [h, D, D] (symmetric).
[[nodiscard]] torch::Tensor LogitWeights(const torch::Tensor& attention,
                                         const torch::Tensor& values,
                                         const torch::Tensor& output,
                                         const torch::Tensor& grams);

}  // namespace kvc::model
