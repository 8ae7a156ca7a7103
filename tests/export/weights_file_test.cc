// The external data file: alignment, padding, rounding, and what is refused.

#include "export/onnx/weights_file.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "export/onnx/decoder_graph.h"
#include "export/onnx/export_model.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::onnx_export {
namespace {

// Weights and cache of one type.
GraphTypes Both(DType dtype) { return {dtype, dtype}; }

namespace fs = std::filesystem;

const fs::path kModels = kvc::testing::SourceRoot() / "tests" / "golden" / "models";

std::map<std::string, Weight> WeightsByName(const Graph& graph) {
  std::map<std::string, Weight> weights;
  for (const Weight& weight : graph.weights) weights[weight.name] = weight;
  return weights;
}

TEST(PlaceWeights, AlignsEachAndLeavesNoOtherGap) {
  std::vector<Weight> weights(4);
  weights[0].dims = {3};
  weights[1].dims = {1024};  // exactly one page
  weights[2].dims = {5, 7};
  weights[2].dtype = DType::kBF16;
  weights[3].dims = {4096, 3};
  EXPECT_EQ(PlaceWeights(weights), 3 * 4096 + 4096 * 3 * 4);
  const std::vector<int64_t> offsets = {0, 4096, 8192, 12288};
  const std::vector<int64_t> bytes = {12, 4096, 70, 49152};
  for (size_t i = 0; i < weights.size(); ++i) {
    EXPECT_EQ(weights[i].offset, offsets[i]);
    EXPECT_EQ(weights[i].bytes, bytes[i]);
  }
}

TEST(WeightValues, AbsorbedRowsArePaddedWithZeros) {
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "gpt2-absorb");
  const ModelConfig& config = checkpoint.config();
  const auto weights = WeightsByName(BuildDecoderGraph(checkpoint, {DType::kF32, DType::kF32}));
  for (const char* part : {"k.weight", "q.weight", "q.bias"}) {
    const Weight& weight = weights.at(std::string("layers.0.") + part);
    const std::vector<float> padded = WeightValues(checkpoint, weight);
    const std::vector<float> packed = checkpoint.Load(weight.role, 0);
    const int64_t columns = weight.dims.size() > 1 ? weight.dims[1] : 1;
    int64_t source = 0;
    for (int64_t head = 0; head < config.num_heads; ++head) {
      const int64_t rank = config.key_width(0, head);  // as many kv heads as heads
      for (int64_t row = 0; row < 8; ++row) {          // the largest rank of the layer
        for (int64_t c = 0; c < columns; ++c) {
          const float actual = padded[static_cast<size_t>((head * 8 + row) * columns + c)];
          const float expected =
              row < rank ? packed[static_cast<size_t>((source + row) * columns + c)] : 0.0F;
          ASSERT_EQ(actual, expected) << part << " head " << head << " row " << row;
        }
      }
      source += rank;
    }
  }
}

TEST(WeightValues, RebuildColumnsBeyondTheRankAreCleared) {
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "llama-latent");
  const ModelConfig& config = checkpoint.config();
  const auto weights = WeightsByName(BuildDecoderGraph(checkpoint, {DType::kBF16, DType::kBF16}));
  bool cleared = false;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const Weight& weight = weights.at("layers." + std::to_string(layer) + ".k_rebuild.weight");
    EXPECT_EQ(weight.dtype, DType::kF32);
    const std::vector<float> values = WeightValues(checkpoint, weight);
    const std::vector<float> stored = checkpoint.Load(Role::kKRebuild, layer);
    const int64_t heads_of_group = config.num_kv_heads / config.num_key_groups();
    for (int64_t row = 0; row < weight.dims[0]; ++row) {
      const int64_t rank = config.key_width(layer, row / config.head_width / heads_of_group);
      for (int64_t c = 0; c < weight.dims[1]; ++c) {
        const auto i = static_cast<size_t>(row * weight.dims[1] + c);
        ASSERT_EQ(values[i], c < rank ? stored[i] : 0.0F);
        cleared = cleared || c >= rank;
      }
    }
  }
  EXPECT_TRUE(cleared) << "the golden model has no ragged ranks any more";
}

TEST(WeightValues, RopeTablesAreRoundedOnce) {
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "llama");
  const ModelConfig& config = checkpoint.config();
  const auto weights = WeightsByName(BuildDecoderGraph(checkpoint, {DType::kF16, DType::kF16}));
  const Weight& cosines = weights.at("rope.cos");
  ASSERT_EQ(cosines.dims, (std::vector<int64_t>{config.context_length, config.head_width / 2}));
  EXPECT_EQ(cosines.dtype, DType::kF32);
  const std::vector<float> cos = WeightValues(checkpoint, cosines);
  const std::vector<float> sin = WeightValues(checkpoint, weights.at("rope.sin"));
  const std::vector<double> frequencies = RopeInverseFrequencies(config.rope, config.head_width);
  for (const int64_t position : {int64_t{0}, int64_t{1}, config.context_length - 1}) {
    for (size_t j = 0; j < frequencies.size(); ++j) {
      const double angle = static_cast<double>(position) * frequencies[j];
      const size_t i = static_cast<size_t>(position) * frequencies.size() + j;
      EXPECT_FLOAT_EQ(cos[i], static_cast<float>(std::cos(angle)));
      EXPECT_FLOAT_EQ(sin[i], static_cast<float>(std::sin(angle)));
    }
  }
}

TEST(WriteOnnxModel, TheSameInputsGiveTheSameBytes) {
  const testing::TempDir directory;
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "qwen3-latent");
  NoProgress progress;
  for (const char* name : {"a", "b"}) {
    fs::create_directory(directory / name);
    WriteOnnxModel(checkpoint, Both(DType::kBF16), directory / name, progress, {{"kvc.x", "1"}});
  }
  for (const char* file : {"model.onnx", "model.onnx.data"}) {
    EXPECT_EQ(Sha256File(directory.path() / "a" / file), Sha256File(directory.path() / "b" / file));
  }
}

TEST(WriteOnnxModel, DataFileHoldsTheWeights) {
  const testing::TempDir directory;
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "llama-bias");
  NoProgress progress;
  WriteOnnxModel(checkpoint, Both(DType::kF32), directory.path(), progress);
  Graph graph = BuildDecoderGraph(checkpoint, {DType::kF32, DType::kF32});
  const int64_t size = PlaceWeights(graph.weights);
  const std::string data = ReadFile(directory / "model.onnx.data");
  ASSERT_EQ(static_cast<int64_t>(data.size()), size);
  for (const Weight& weight : graph.weights) {
    const std::vector<float> expected = WeightValues(checkpoint, weight);
    ASSERT_EQ(std::memcmp(data.data() + weight.offset, expected.data(),
                          static_cast<size_t>(weight.bytes)),
              0)
        << weight.name;
  }
}

// A copy of a golden model with one element of its final norm replaced.
fs::path CopyWithElement(const testing::TempDir& directory, float value) {
  const fs::path source = kModels / "mistral";
  const fs::path target = directory / "model";
  fs::create_directory(target);
  CopyFile(source / "config.json", target / "config.json");
  const SafetensorsReader reader = SafetensorsReader::OpenFile(source / "model.safetensors");
  std::vector<TensorSpec> specs;
  for (const std::string& name : reader.names()) {
    specs.push_back({name, reader.Get(name).dtype, reader.Get(name).shape});
  }
  SafetensorsWriter writer(target / "model.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    const TensorRef& tensor = reader.Get(spec.name);
    std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
    ConvertToFloat(tensor.dtype, tensor.bytes.data(), tensor.num_elements(), values.data());
    if (spec.name == "model.layers.1.mlp.down_proj.weight") values[3] = value;
    writer.WriteFloats(spec.name, values);
  }
  writer.Close();
  return target;
}

TEST(WriteOnnxModel, RefusesWhatF16CannotHold) {
  const testing::TempDir directory;
  const Checkpoint checkpoint = Checkpoint::Open(CopyWithElement(directory, 1e5F));
  NoProgress progress;
  EXPECT_KVC_ERROR(WriteOnnxModel(checkpoint, Both(DType::kF16), directory.path(), progress),
                   kNumeric, "layers.1.down.weight: element 3");
  WriteOnnxModel(checkpoint, Both(DType::kBF16), directory.path(), progress);
}

TEST(WriteOnnxModel, RefusesNan) {
  const testing::TempDir directory;
  const Checkpoint checkpoint = Checkpoint::Open(CopyWithElement(directory, std::nanf("")));
  NoProgress progress;
  EXPECT_KVC_ERROR(WriteOnnxModel(checkpoint, Both(DType::kF32), directory.path(), progress),
                   kNumeric, "model.layers.1.mlp.down_proj.weight");
}

TEST(WriteOnnxModel, RefusesADirectoryThatIsNotThere) {
  const testing::TempDir directory;
  const Checkpoint checkpoint = Checkpoint::Open(kModels / "gpt2");
  NoProgress progress;
  EXPECT_KVC_ERROR(WriteOnnxModel(checkpoint, Both(DType::kF32), directory / "missing", progress),
                   kIo, "model.onnx.data");
}

}  // namespace
}  // namespace kvc::onnx_export
