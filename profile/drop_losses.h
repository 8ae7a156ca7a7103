#pragma once
// The change of the attention's output when one token alone is dropped: what loss maps are fitted
// to (profile/mixed_curves.h has the formula).

#include <cstdint>
#include <optional>

#include <torch/types.h>

namespace kvc::profile {

// Returns l [T], double: for each token what dropping it alone would cost the last Q tokens'
// queries of one kv head, the mean over the queries' heads h and the weighted sum over the queries
// i of (a_ij / (1 - a_ij))^2 |(v_j - o_i) W_O^hT|^2.
//
//   queries  [H/G, Q, D_k] of the last Q tokens, each of which sees the tokens up to itself, or the
//            last `window` of them
//   keys     [T, D_k], values [T, D_v] of all tokens
//   grams    [H/G, D_v, D_v]: W_O^hT W_O^h
//   weight   [Q], double: of a query's squared error
[[nodiscard]] torch::Tensor DropLosses(const torch::Tensor& queries,
                                       const torch::Tensor& keys,
                                       const torch::Tensor& values,
                                       const torch::Tensor& grams,
                                       const torch::Tensor& weight,
                                       double scale,
                                       std::optional<int64_t> window = {});

}  // namespace kvc::profile
