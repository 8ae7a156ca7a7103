#pragma once
// Writes a thin checkpoint (docs/formats/thin-checkpoint.md): the source's tensors as they are, the
// thin ones in float32, tensor by tensor.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// A file holds at most this much, then the next shard begins.
inline constexpr int64_t kShardBytes = 5LL << 30;

// config.json, model.safetensors or shards with their index, and the tokenizer's files, into
// `directory`. `factors` has one entry for each layer. Peak memory: the largest fused matrix.
void WriteThinCheckpoint(const Checkpoint& source,
                         const KeyFactors& keys,
                         const std::vector<LayerFactors>& factors,
                         const std::filesystem::path& directory,
                         Progress& progress,
                         int64_t shard_bytes = kShardBytes);

}  // namespace kvc::factorize
