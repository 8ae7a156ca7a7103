#pragma once
// The embedding without the embedding: the rows of the tokens in use, read from the mapped file.

#include <cstdint>
#include <span>

#include <torch/torch.h>

#include "core/checkpoint.h"

namespace kvc::model {

// Rows of the embedding for `ids`, each inside the vocabulary: [ids, E] float32. Throws kNumeric
// when one of them holds a NaN or an infinity.
[[nodiscard]] torch::Tensor LoadEmbeddingRows(const Checkpoint& checkpoint,
                                              std::span<const int32_t> ids);

}  // namespace kvc::model
