#pragma once
// Writes a checkpoint as a bundle: model.onnx with external data, tokenizer files, manifest.json.
// What the ONNX file looks like: docs/formats/onnx.md.

#include <filesystem>

#include "core/checkpoint.h"
#include "core/manifest.h"
#include "core/progress.h"

namespace kvc::onnx_export {

// Writes model.onnx and model.onnx.data into `directory`, streamed tensor by tensor: peak memory is
// the largest matrix. Weights are stored as `dtype`; f16 and bf16 are cast to float before use. The
// past and present key and value tensors have the type `dtype`.
void WriteOnnxModel(const Checkpoint& checkpoint,
                    DType dtype,
                    const std::filesystem::path& directory,
                    Progress& progress);

// The cache geometry of a checkpoint: groups, widths, positions; method kFull, no budget.
[[nodiscard]] CacheSpec MakeCacheSpec(const ModelConfig& config, DType dtype);

}  // namespace kvc::onnx_export
