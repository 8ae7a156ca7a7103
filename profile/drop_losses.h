#pragma once
// The change of the attention's output when one token alone is dropped: what loss maps are fitted
// to (profile/mixed_curves.h has the formula).

#include <torch/types.h>

#include "profile/head_window.h"

namespace kvc::profile {

// Returns l [T], double: for each token what dropping it alone would cost the queries of one kv
// head, the mean over the query heads h and the weighted sum over the queries i of
// (a_ij / (1 - a_ij))^2 |(v_j - o_i) W_O^hT|^2.
[[nodiscard]] torch::Tensor DropLosses(const HeadWindow& head);

}  // namespace kvc::profile
