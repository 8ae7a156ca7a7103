#pragma once
// Distance of a layer's attention from the full model's, and its gradient by the queries and keys.

#include <cstdint>

#include <torch/types.h>

#include "core/checkpoint/model_config.h"
#include "model/projections.h"

namespace kvc::factorize {

// The output of the full model's attention for one window.
struct AttentionTarget {
  torch::Tensor output;  // [T, E] added to the residual stream, without bias
  torch::Tensor weight;  // [T] 1 / (T |r_t|^2), r the full model's residual stream after it
};

struct AttentionError {
  double error = 0.0;  // sum over t of weight_t |y_t - output_t|^2
  // Gradient of the error; undefined unless asked for.
  torch::Tensor q;  // [1, H, T, D_k]
  torch::Tensor k;  // [1, G, T, D_k]
};

// Returns the error of y = softmax(q k^T / sqrt(D)) v W_O^T for one window of text, causal
// and within the layer's own window (Projections::window), with
//   dP = (dy W_O) v^T,  dS = P (dP - rowsum(dP P)),  dq = dS k / sqrt(D),  dk = dS^T q / sqrt(D).
// Works through blocks of queries, so that no [T, T] matrix is ever held and the keys after a block
// are never touched. o [E, H*D] is W_O. Uses no autograd; works in float32, with the error summed
// in double.
[[nodiscard]] AttentionError MeasureAttention(const ModelConfig& config,
                                              const model::Projections& p,
                                              const torch::Tensor& o,
                                              const AttentionTarget& target,
                                              bool with_gradient);

}  // namespace kvc::factorize
