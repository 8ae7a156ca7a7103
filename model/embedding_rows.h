#pragma once
// Parts of the embedding and the head without loading the whole embedding: only the rows of the
// tokens in use are read from the mapped file.

#include <cstdint>
#include <span>
#include <vector>

#include <torch/types.h>

#include "core/checkpoint/checkpoint.h"
#include "model/decoder.h"

namespace kvc::model {

// Returns the embedding rows of `ids`, each inside the vocabulary: [ids, E] float32. Throws
// kNumeric when a row holds a NaN or an infinity.
[[nodiscard]] torch::Tensor LoadEmbeddingRows(const Checkpoint& checkpoint,
                                              std::span<const int32_t> ids);

// Returns the first layer's input for every window, with positions added if the family has them:
// [T, E] each. Reads only the rows in use. Throws kBadInput for ids outside the vocabulary and for
// empty windows.
[[nodiscard]] std::vector<torch::Tensor> EmbedWindows(
    const Checkpoint& checkpoint, const std::vector<std::vector<int32_t>>& windows);

// Loads what Logits needs: the final norm and the head. The embedding is undefined unless it is the
// head.
[[nodiscard]] OuterWeights LoadHead(const Checkpoint& checkpoint);

}  // namespace kvc::model
