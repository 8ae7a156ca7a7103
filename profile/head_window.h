#pragma once
// The attention of one kv head in a calibration window: its last tokens' queries over all tokens.

#include <cstdint>
#include <optional>

#include <torch/types.h>

namespace kvc::profile {

struct HeadWindow {
  torch::Tensor queries;          // [H/G, Q, D_k] of the last Q of the T tokens
  torch::Tensor keys;             // [T, D_k]
  torch::Tensor values;           // [T, D_v]
  torch::Tensor grams;            // [H/G, D_v, D_v]: W_O^hT W_O^h of the query heads
  torch::Tensor weight;           // [Q], double: of a query's squared error
  double scale = 1.0;             // of the logits
  std::optional<int64_t> window;  // a query sees the last so many tokens up to its own; none: all
};

}  // namespace kvc::profile
