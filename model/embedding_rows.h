#pragma once
// The embedding without the embedding: the rows of the tokens in use, read from the mapped file;
// and the head without the embedding.

#include <cstdint>
#include <span>
#include <vector>

#include <torch/types.h>

#include "core/checkpoint/checkpoint.h"
#include "model/decoder.h"

namespace kvc::model {

// Rows of the embedding for `ids`, each inside the vocabulary: [ids, E] float32. Throws kNumeric
// when one of them holds a NaN or an infinity.
[[nodiscard]] torch::Tensor LoadEmbeddingRows(const Checkpoint& checkpoint,
                                              std::span<const int32_t> ids);

// The first layer's input of every window, positions added where the family has them: [T, E] each.
// Reads only the rows in use. Throws kBadInput for ids outside the vocabulary and empty windows.
[[nodiscard]] std::vector<torch::Tensor> EmbedWindows(
    const Checkpoint& checkpoint, const std::vector<std::vector<int32_t>>& windows);

// Final norm and head only: what Logits needs. The embedding is undefined unless it is the head.
[[nodiscard]] OuterWeights LoadHead(const Checkpoint& checkpoint);

}  // namespace kvc::model
