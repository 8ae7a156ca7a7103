#pragma once
// Writes a thin checkpoint (docs/formats/thin-checkpoint.md), tensor by tensor: the source's
// tensors unchanged, the thin ones in float32.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Largest size of a file; after it the next shard begins.
inline constexpr int64_t kShardBytes = 5LL << 30;

// Writes config.json, modeling_kvc.py, model.safetensors or shards with their index, and the
// tokenizer's files into `directory`. `factors` has one entry per layer. Peak memory is the largest
// fused matrix.
void WriteThinCheckpoint(const Checkpoint& source,
                         const KeyFactors& keys,
                         const std::vector<LayerFactors>& factors,
                         const std::filesystem::path& directory,
                         Progress& progress,
                         int64_t shard_bytes = kShardBytes);

}  // namespace kvc::factorize
