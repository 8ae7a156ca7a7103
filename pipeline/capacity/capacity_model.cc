#include "pipeline/capacity/capacity_model.h"

#include <numeric>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/weight_layout.h"
#include "export/onnx/export_model.h"

namespace kvc::capacity {
namespace {

namespace fs = std::filesystem;

constexpr char kManifestFile[] = "manifest.json";
constexpr char kDataFile[] = "model.onnx.data";

bool IsFactor(Role role) {
  return role == Role::kKRebuild || role == Role::kKReduce || role == Role::kQReduce;
}

int64_t RoleBytes(const ModelConfig& config, Role role, int64_t layer, DType dtype) {
  const std::vector<int64_t> shape = ShapeOf(config, role, layer);
  const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies());
  return count * DTypeBytes(shape.size() == 2 && !IsFactor(role) ? dtype : DType::kF32);
}

// Sums the roles that a bundle stores.
int64_t StoredBytes(const ModelConfig& config, DType dtype) {
  int64_t bytes = 0;
  for (const RoleRow& row : kRoles) {
    if (!HasRole(config, row.role)) continue;
    if (row.role == Role::kLmHead && config.tied_embeddings) continue;
    if (IsOuter(row.role)) {
      bytes += RoleBytes(config, row.role, -1, dtype);
      continue;
    }
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      bytes += RoleBytes(config, row.role, layer, dtype);
    }
  }
  return bytes;
}

// Sums the tables of which a step reads one row for each token. A tied embedding is the head too,
// which reads all of it.
int64_t TableBytes(const ModelConfig& config, DType dtype) {
  int64_t bytes = 0;
  if (!config.tied_embeddings) bytes += RoleBytes(config, Role::kEmbedding, -1, dtype);
  if (!config.has_rope) bytes += RoleBytes(config, Role::kPositionEmbedding, -1, dtype);
  return bytes;
}

bool HasWeights(const fs::path& directory) {
  return fs::exists(directory / "model.safetensors") ||
         fs::exists(directory / "model.safetensors.index.json");
}

// The type that the checkpoint computes and caches in.
DType OwnType(const fs::path& directory, const ModelConfig& config) {
  if (config.dtype) return *config.dtype == DType::kF64 ? DType::kF32 : *config.dtype;
  return HasWeights(directory) ? Checkpoint::Open(directory).OwnType() : DType::kF32;
}

CapacityModel ReadBundle(const fs::path& directory, const StorageOptions& options) {
  KVC_CHECK(!options.weights_dtype && !options.cache_format, kUsage,
            "--dtype, --cache-dtype: expected a checkpoint, got the bundle {}, which has settled "
            "both; leave them out",
            directory.string());
  const Manifest manifest = ReadManifestAndBases(directory);
  const auto data = manifest.files.find(kDataFile);
  KVC_CHECK(data != manifest.files.end(), kBadInput, "{}: expected {} among \"files\", got none",
            (directory / kManifestFile).string(), kDataFile);
  CapacityModel model;
  model.config = manifest.model;
  model.geometry = static_cast<const CacheGeometry&>(manifest.cache);
  model.weights_dtype = manifest.weights_dtype;
  model.weight_bytes = data->second.bytes;
  model.exported = manifest.cache;
  model.exported_budget = ToString(manifest.budget);
  return model;
}

CapacityModel ReadCheckpoint(const fs::path& directory, const StorageOptions& options) {
  CapacityModel model;
  model.config = ReadModelConfig(directory);
  const DType own = OwnType(directory, model.config);
  model.weights_dtype = options.weights_dtype.value_or(own);
  const RowFormat format = options.cache_format.value_or(RowFormatOf(model.weights_dtype));
  model.geometry = onnx_export::MakeCacheGeometry(model.config, format, own);
  model.weight_bytes = StoredBytes(model.config, model.weights_dtype);
  return model;
}

}  // namespace

CapacityModel ReadCapacityModel(const fs::path& directory, const StorageOptions& options) {
  KVC_CHECK(fs::is_directory(directory), kIo, "{}: expected a checkpoint or a bundle, got none",
            directory.string());
  const bool bundle = fs::exists(directory / kManifestFile);
  CapacityModel model =
      bundle ? ReadBundle(directory, options) : ReadCheckpoint(directory, options);
  model.name = fs::canonical(directory).filename().string();
  model.step_weight_bytes = model.weight_bytes - TableBytes(model.config, model.weights_dtype);
  return model;
}

}  // namespace kvc::capacity
