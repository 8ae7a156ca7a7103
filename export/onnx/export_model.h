#pragma once
// Writes a checkpoint as an ONNX model with external data, the executable half of a bundle.
// docs/formats/onnx.md describes the file.

#include <filesystem>
#include <map>
#include <string>

#include "core/base/progress.h"
#include "core/cache/cache_geometry.h"
#include "core/checkpoint/checkpoint.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Key of the metadata entry that ties a model to its cache policy: CacheDigest of the manifest.
inline constexpr char kCacheDigestKey[] = "kvc.cache_sha256";

// The coordinates of latents: the checkpoint's, or those of export/onnx/unit_rows.h.
enum class LatentBasis { kStored, kUnitRows };

// Writes model.onnx and model.onnx.data into `directory`, streamed tensor by tensor: peak memory is
// the largest matrix. Weights are stored in their type; f16 and bf16 are cast to float before use.
// `metadata` is added to the model's
// own entries. Throws kUnsupported (key layout), kNumeric (NaN, out of f16's range), kIo.
void WriteOnnxModel(const Checkpoint& checkpoint,
                    GraphTypes types,
                    const std::filesystem::path& directory,
                    Progress& progress,
                    const std::map<std::string, std::string>& metadata = {},
                    LatentBasis latents = LatentBasis::kStored);

// The cache geometry of a checkpoint: groups, widths, positions; keys and values in one format.
[[nodiscard]] CacheGeometry MakeCacheGeometry(const ModelConfig& config,
                                              const RowFormat& format,
                                              DType original_dtype);

}  // namespace kvc::onnx_export
