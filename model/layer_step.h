#pragma once
// Runs a decoder layer one token at a time against the keys and values of the tokens before it.
// This is the plain cache of generation inside a stage; the compressed cache is the runtime's.

#include <cstdint>

#include <torch/types.h>

#include "model/decoder.h"

namespace kvc::model {

// Keys and values of N sequences of the same length, as they enter the dot product (LayerTaps),
// with room for more tokens.
struct LayerRows {
  torch::Tensor k;     // [N, G, room, D_k]
  torch::Tensor v;     // [N, G, room, D]
  int64_t tokens = 0;  // that are filled
};

// Runs the next token of every sequence: hidden [N, 1, E] at position rows.tokens -> [N, 1, E].
// Appends to `rows`, which must have room. Computes no gradients.
[[nodiscard]] torch::Tensor LayerStep(const ModelConfig& config,
                                      const LayerWeights& weights,
                                      int64_t layer,
                                      const torch::Tensor& hidden,
                                      LayerRows& rows);

}  // namespace kvc::model
