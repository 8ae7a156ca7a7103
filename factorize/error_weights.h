#pragma once
// Weights of errors in cached keys, token by token, for the closed forms, and the queries that a
// key meets. Uses no autograd.

#include <torch/types.h>

#include "factorize/key_statistics.h"
#include "model/decoder.h"

namespace kvc::factorize {

// Returns w [H/G, T, T]: the squared weight of an error in the logit of query i (second index) and
// key t (third) in one window, for the query heads of kv head `head`; zero for keys after the
// query.
//   kAttention  a_it (1 - a_it), how much it moves the attention;
//   kOutput     a_it^2 |(v_t - o_i) W_O|^2, what it does to the output: d o_i / d logit_it squared.
// `taps` needs projections and probabilities, and attention for kOutput.
[[nodiscard]] torch::Tensor PairWeights(const ModelConfig& config,
                                        ErrorWeights kind,
                                        const model::LayerTaps& taps,
                                        const model::LayerWeights& weights,
                                        int64_t head);

// cos and sin [T, r/2] of the positions 0..T-1, times the attention factor.
struct RotationTables {
  torch::Tensor cos;
  torch::Tensor sin;
};
[[nodiscard]] RotationTables MakeRotationTables(const ModelConfig& config, int64_t num_tokens);

// Returns the second moment of the queries that a head's keys meet. A query that rotation turned to
// position i meets the raw key of position t as z_it = q_i R_t^T, turned back by the key's
// position; tables without columns say that nothing was turned. The result is the sum of w_it
// z_it^T z_it [D, D], double, over the query heads of q [H/G, T, D] with w [H/G, T, T], over the
// last query of every 32 and all keys up to it.
[[nodiscard]] torch::Tensor MetQueries(const torch::Tensor& q,
                                       const torch::Tensor& w,
                                       const RotationTables& tables);

}  // namespace kvc::factorize
