#pragma once
// What is known of a model before its weights are read: enough to say what its cache and its
// weights will take. A bundle, a checkpoint, or a folder with nothing but a config.json.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/base/dtype.h"
#include "core/base/row_format.h"
#include "core/cache/cache_spec.h"
#include "core/checkpoint/model_config.h"

namespace kvc::capacity {

// How a model would be exported; a bundle has settled both.
struct StorageOptions {
  std::optional<DType> weights_dtype;     // none: the checkpoint's
  std::optional<RowFormat> cache_format;  // none: the weights'
};

struct CapacityModel {
  std::string name;  // last component of the directory
  ModelConfig config;
  CacheGeometry geometry;
  DType weights_dtype = DType::kF32;
  // Bytes of all weights as a bundle stores them: a bundle's own data file, else matrices in
  // weights_dtype, vectors and factors of keys in float, without the padding that thin rows get.
  int64_t weight_bytes = 0;
  // Bytes of those that a decode step reads: without tables of which it reads a row for each token.
  int64_t step_weight_bytes = 0;
  // A bundle's own cache, and its budget as it was asked for.
  std::optional<CacheSpec> exported = {};
  std::string exported_budget = {};
};

// Reads a directory: a bundle, if it has a manifest.json, else a checkpoint's config.json; weights
// are only asked for their type, if they are there and config.json does not say (float where nobody
// says). Throws kBadInput and kUnsupported like ReadModelConfig and ReadManifest; kUsage for
// storage options with a bundle.
[[nodiscard]] CapacityModel ReadCapacityModel(const std::filesystem::path& directory,
                                              const StorageOptions& options);

}  // namespace kvc::capacity
