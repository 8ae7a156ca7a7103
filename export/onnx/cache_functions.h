#pragma once
// The com.kvc cache functions: their calls in the graph, and their bodies in standard operators.
// docs/formats/onnx.md, "Cache functions", has their definitions.

#include <cstdint>
#include <string>

#include "core/checkpoint/model_config.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Returns the stored key width R of a layer: the largest width of its groups.
[[nodiscard]] int64_t PaddedKeyWidth(const ModelConfig& config, int64_t layer);

// Returns the function that the configuration's key layout calls, with past and present in `dtype`.
[[nodiscard]] Function MakeCacheFunction(const ModelConfig& config, DType dtype);
// Returns the function of layers whose latents are rebuilt without a rotation.
[[nodiscard]] Function MakePlainLatentFunction(const ModelConfig& config, DType dtype);

// The values that enter a layer's cache node.
struct CacheInputs {
  std::string query;  // [B, S, H*D] after rotation (H*R with thin keys other than latents)
  std::string key;    // [B, S, G*R] after rotation, or the latents [B, S, n*R]
  std::string value;  // [B, S, G*D]
};
// Returns the cache node of a layer, with outputs `layers.N.attention`, `present.N.key`,
// `present.N.value`.
[[nodiscard]] Node MakeCacheNode(const ModelConfig& config,
                                 int64_t layer,
                                 const CacheInputs& inputs);

}  // namespace kvc::onnx_export
