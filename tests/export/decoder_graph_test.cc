// The graph of every golden model is well formed and has the shape of docs/formats/onnx.md.

#include "export/onnx/decoder_graph.h"

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "export/onnx/cache_functions.h"
#include "export/onnx/export_model.h"
#include "tests/support/golden_names.h"
#include "tests/support/paths.h"

namespace kvc::onnx_export {
namespace {

const std::filesystem::path kModels = kvc::testing::SourceRoot() / "tests" / "golden" / "models";

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class DecoderGraphTest : public ::testing::TestWithParam<std::string> {
 protected:
  DecoderGraphTest() : checkpoint_(Checkpoint::Open(kModels / GetParam())) {}
  Checkpoint checkpoint_;
};

// Each name is defined once, before its uses; returns the names that are used.
std::set<std::string> CheckOrder(const std::vector<Node>& nodes, std::set<std::string> defined) {
  std::set<std::string> used;
  std::set<std::string> node_names;
  for (const Node& node : nodes) {
    EXPECT_TRUE(node_names.insert(node.name).second) << node.name << " stands twice";
    for (const std::string& input : node.inputs) {
      if (input.empty()) continue;
      EXPECT_TRUE(defined.contains(input)) << node.name << " uses " << input << " too early";
      used.insert(input);
    }
    for (const std::string& output : node.outputs) {
      EXPECT_TRUE(defined.insert(output).second) << output << " is defined twice";
    }
  }
  return used;
}

TEST_P(DecoderGraphTest, EveryNameIsDefinedOnceAndUsed) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Graph graph = BuildDecoderGraph(checkpoint_, {dtype, dtype});
    std::set<std::string> defined;
    std::vector<std::string> given;
    for (const ValueInfo& input : graph.inputs) given.push_back(input.name);
    for (const Constant& constant : graph.constants) given.push_back(constant.name);
    for (const Weight& weight : graph.weights) given.push_back(weight.name);
    for (const std::string& name : given) {
      EXPECT_TRUE(defined.insert(name).second) << name << " stands twice";
    }
    const std::set<std::string> used = CheckOrder(graph.nodes, defined);
    for (const std::string& name : given) {
      // Positions enter through the rotation or the position embedding, one of which is there.
      EXPECT_TRUE(used.contains(name)) << name << " is never used";
    }
  }
}

void CheckBody(const Function& function) {
  const std::set<std::string> inputs(function.inputs.begin(), function.inputs.end());
  CheckOrder(function.nodes, inputs);
  std::set<std::string> defined;
  for (const Node& node : function.nodes) {
    defined.insert(node.outputs.begin(), node.outputs.end());
    for (const Attribute& attribute : node.attributes) {
      if (attribute.reference.empty()) continue;
      EXPECT_NE(
          std::find(function.attributes.begin(), function.attributes.end(), attribute.reference),
          function.attributes.end())
          << attribute.reference;
    }
  }
  for (const std::string& output : function.outputs) EXPECT_TRUE(defined.contains(output));
}

TEST_P(DecoderGraphTest, FunctionBodiesAreWellFormed) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const Graph graph = BuildDecoderGraph(checkpoint_, {dtype, dtype});
    std::set<std::string> called;
    for (const Node& node : graph.nodes) {
      if (node.domain == kFunctionDomain) called.insert(node.op);
    }
    EXPECT_EQ(called.size(), graph.functions.size());
    for (const Function& function : graph.functions) {
      EXPECT_TRUE(called.contains(function.name)) << function.name;
      CheckBody(function);
    }
  }
}

TEST_P(DecoderGraphTest, OneCacheNodeForEachLayer) {
  const ModelConfig& config = checkpoint_.config();
  const Graph graph = BuildDecoderGraph(checkpoint_, {DType::kF32, DType::kF32});
  ASSERT_FALSE(graph.functions.empty());
  int64_t layer = 0;
  for (const Node& node : graph.nodes) {
    if (node.op != graph.functions[0].name && node.op != kPlainLatentFunction) continue;
    EXPECT_EQ(node.op == kPlainLatentFunction,
              config.keys.layout == KeyLayout::kLatent && !config.rotated(layer));
    EXPECT_EQ(node.domain, kFunctionDomain);
    EXPECT_LE(node.inputs.size(), graph.functions[0].inputs.size());
    ASSERT_EQ(node.attributes.size(), graph.functions[0].attributes.size());
    EXPECT_EQ(std::get<int64_t>(node.attributes[0].value), layer);
    const auto ranks = std::get<std::vector<int64_t>>(node.attributes[3].value);
    ASSERT_EQ(static_cast<int64_t>(ranks.size()), config.num_key_groups());
    for (size_t n = 0; n < ranks.size(); ++n) {
      EXPECT_EQ(ranks[n], config.key_width(layer, static_cast<int64_t>(n)));
      EXPECT_LE(ranks[n], PaddedKeyWidth(config, layer));
    }
    const auto scale = static_cast<double>(std::get<float>(node.attributes[4].value));
    EXPECT_NEAR(scale * scale * static_cast<double>(config.head_width), 1.0, 1e-6);
    const std::optional<int64_t> window = config.window(layer);
    EXPECT_EQ(node.inputs[5], window ? "mask.window_" + std::to_string(*window) : "mask");
    if (config.has_windows()) {
      EXPECT_EQ(node.attributes[5].name, "window");
      EXPECT_EQ(std::get<int64_t>(node.attributes[5].value), window.value_or(0));
    }
    ++layer;
  }
  EXPECT_EQ(layer, config.num_layers);
}

// other_engines_test.py compares them with what onnx infers.
TEST_P(DecoderGraphTest, EveryValueHasAShape) {
  const ModelConfig& config = checkpoint_.config();
  const Graph graph = BuildDecoderGraph(checkpoint_, {DType::kBF16, DType::kBF16});
  std::set<std::string> outputs;
  for (const ValueInfo& output : graph.outputs) outputs.insert(output.name);
  std::vector<std::string> expected;
  for (const Node& node : graph.nodes) {
    for (const std::string& name : node.outputs) {
      if (!outputs.contains(name)) expected.push_back(name);
    }
  }
  std::vector<std::string> names;
  for (const ValueInfo& value : graph.values) {
    names.push_back(value.name);
    if (value.name == "mask.causal") {
      EXPECT_EQ(value.dtype, DType::kBool);
      EXPECT_EQ(value.dims, (decltype(value.dims){"sequence", "total_sequence"}));
    }
    if (value.name == "layers.1.attention") {
      EXPECT_EQ(value.dtype, DType::kF32);
      EXPECT_EQ(value.dims,
                (decltype(value.dims){"batch", "sequence", config.num_heads * config.head_width}));
    }
  }
  EXPECT_EQ(names, expected);
}

TEST_P(DecoderGraphTest, CacheSpecAgreesWithTheGraph) {
  const ModelConfig& config = checkpoint_.config();
  const CacheGeometry spec = MakeCacheGeometry(config, kRowsF16, DType::kBF16);
  EXPECT_EQ(spec.key_format, kRowsF16);
  EXPECT_EQ(spec.value_format, kRowsF16);
  EXPECT_EQ(spec.original_dtype, DType::kBF16);
  ASSERT_EQ(spec.num_layers(), config.num_layers);
  for (int64_t l = 0; l < spec.num_layers(); ++l) {
    EXPECT_EQ(spec.AttentionWindow(l), config.window(l).value_or(0));
    std::vector<int64_t> heads;
    for (const CacheGroup& group : spec.layers[l]) {
      EXPECT_EQ(group.value_width, config.head_width);
      EXPECT_EQ(group.keeps_positions, config.keys.layout == KeyLayout::kLatent);
      heads.insert(heads.end(), group.heads.begin(), group.heads.end());
    }
    ASSERT_EQ(static_cast<int64_t>(heads.size()), config.num_kv_heads);
    for (size_t i = 0; i < heads.size(); ++i) EXPECT_EQ(heads[i], static_cast<int64_t>(i));
  }
}

INSTANTIATE_TEST_SUITE_P(GoldenModels,
                         DecoderGraphTest,
                         ::testing::ValuesIn(ModelNames()),
                         testing::ParameterName());

}  // namespace
}  // namespace kvc::onnx_export
