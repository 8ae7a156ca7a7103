#include "export/onnx/export_model.h"

#include <utility>

#include "core/base/version.h"
#include "core/io/json.h"
#include "export/onnx/cache_functions.h"
#include "export/onnx/decoder_graph.h"
#include "export/onnx/onnx_file.h"
#include "export/onnx/weights_file.h"

namespace kvc::onnx_export {
namespace {

constexpr char kModelFile[] = "model.onnx";
constexpr char kDataFile[] = "model.onnx.data";

void AddModelMetadata(const ModelConfig& config, DType dtype, Graph& graph) {
  Json ranks = Json::array();  // [L][n]
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    Json row = Json::array();
    for (int64_t group = 0; group < config.num_key_groups(); ++group) {
      row.push_back(config.key_width(layer, group));
    }
    ranks.push_back(std::move(row));
  }
  graph.metadata["kvc.format"] = "1";
  graph.metadata["kvc.version"] = Version();
  graph.metadata["kvc.family"] = FamilyName(config.family);
  graph.metadata["kvc.key_layout"] = KeyLayoutName(config.keys.layout);
  graph.metadata["kvc.dtype"] = ShortName(dtype);
  graph.metadata["kvc.key_ranks"] = ranks.dump();
}

}  // namespace

void WriteOnnxModel(const Checkpoint& checkpoint,
                    GraphTypes types,
                    const std::filesystem::path& directory,
                    Progress& progress,
                    const std::map<std::string, std::string>& metadata,
                    LatentBasis latents) {
  Graph graph = BuildDecoderGraph(checkpoint, types);
  const bool latent = checkpoint.config().keys.layout == KeyLayout::kLatent;
  for (Weight& weight : graph.weights) {
    const bool factor = weight.role == Role::kK || weight.role == Role::kKRebuild;
    weight.unit_rows = latents == LatentBasis::kUnitRows && latent && factor;
  }
  AddModelMetadata(checkpoint.config(), types.weights, graph);
  graph.metadata.insert(metadata.begin(), metadata.end());
  PlaceWeights(graph.weights);
  WriteWeights(checkpoint, graph.weights, directory / kDataFile, progress);
  WriteOnnxFile(graph, kDataFile, std::string(Version()), directory / kModelFile);
}

CacheGeometry MakeCacheGeometry(const ModelConfig& config,
                                const RowFormat& format,
                                DType original_dtype) {
  CacheGeometry geometry;
  geometry.key_format = format;
  geometry.value_format = format;
  geometry.original_dtype = original_dtype;
  geometry.num_heads = config.num_heads;
  geometry.num_kv_heads = config.num_kv_heads;
  geometry.head_width = config.head_width;
  const int64_t heads_of_group = config.num_kv_heads / config.num_key_groups();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    std::vector<CacheGroup>& groups = geometry.layers.emplace_back();
    for (int64_t n = 0; n < config.num_key_groups(); ++n) {
      CacheGroup group;
      group.key_width = config.key_width(layer, n);
      group.value_width = config.head_width;
      for (int64_t head = n * heads_of_group; head < (n + 1) * heads_of_group; ++head) {
        group.heads.push_back(head);
      }
      group.keeps_positions = config.keys.layout == KeyLayout::kLatent;
      groups.push_back(std::move(group));
    }
  }
  if (config.has_windows()) {
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      geometry.attention_windows.push_back(config.window(layer).value_or(0));
    }
  }
  return geometry;
}

}  // namespace kvc::onnx_export
