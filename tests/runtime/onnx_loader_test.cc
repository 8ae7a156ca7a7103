// Broken and hostile model files: each is refused, by name, with the right kind of error.

#include "runtime/load/onnx_loader.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/base/rng.h"
#include "core/io/files.h"
#include "runtime/plan/plan.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::runtime {
namespace {

using testing::TempDir;

// A good model file that tests break.
class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() : file_(directory_ / "model.onnx") {
    testing::WriteBundle(testing::GoldenModel("llama-latent"), directory_.path());
    proto_.ParseFromString(ReadFile(file_));
  }

  void Save() { WriteFile(file_, proto_.SerializeAsString()); }
  onnx::TensorProto& Initializer(const std::string& name) {
    for (auto& tensor : *proto_.mutable_graph()->mutable_initializer()) {
      if (tensor.name() == name) return tensor;
    }
    throw std::runtime_error("no initializer " + name);
  }
  onnx::NodeProto& NodeOf(const std::string& output) {
    for (auto& node : *proto_.mutable_graph()->mutable_node()) {
      if (node.output(0) == output) return node;
    }
    throw std::runtime_error("no node for " + output);
  }
  static void SetExternal(onnx::TensorProto& tensor, const char* key, const std::string& value) {
    for (auto& entry : *tensor.mutable_external_data()) {
      if (entry.key() == key) entry.set_value(value);
    }
  }
  // Loads and plans what was saved.
  void Load() const {
    const Model model = LoadOnnx(file_);
    static_cast<void>(PlanGraph(model.graph));
  }

  TempDir directory_;
  std::filesystem::path file_;
  onnx::ModelProto proto_;
};

TEST_F(LoaderTest, LoadsWhatTheExporterWrites) {
  const Model model = LoadOnnx(file_);
  const Tensor& embedding = model.graph.initializers.at("embedding.weight");
  EXPECT_EQ(embedding.dims, (std::vector<int64_t>{96, 32}));
  const Plan plan = PlanGraph(model.graph);
  EXPECT_EQ(plan.sections.size(), 4U);
  EXPECT_EQ(plan.attentions.size(), 2U);
  EXPECT_EQ(plan.vocab_size, 96);
}

TEST_F(LoaderTest, TruncatedAnywhere) {
  const std::string bytes = ReadFile(file_);
  for (size_t size = 0; size < bytes.size(); size += 97) {
    WriteFile(file_, bytes.substr(0, size));
    EXPECT_THROW(Load(), Error) << size;
  }
}

// Any byte may be wrong: the loader answers with an error or a plan, never with a crash.
TEST_F(LoaderTest, FlippedBytes) {
  const std::string bytes = ReadFile(file_);
  Rng rng(1);
  for (int trial = 0; trial < 400; ++trial) {
    std::string broken = bytes;
    broken[rng.NextBelow(std::ssize(broken))] ^= static_cast<char>(1 + rng.NextBelow(255));
    WriteFile(file_, broken);
    try {
      Load();
    } catch (const Error&) {
    }
  }
}

TEST_F(LoaderTest, NotOnnx) {
  WriteFile(file_, "this is a text file, and quite a long one at that");
  EXPECT_KVC_ERROR(Load(), kBadInput, "model.onnx");
  EXPECT_KVC_ERROR(static_cast<void>(LoadOnnx(directory_ / "absent.onnx")), kIo, "absent.onnx");
}

TEST_F(LoaderTest, ExternalDataOutsideTheFolder) {
  const std::filesystem::path data = directory_ / "model.onnx.data";
  std::filesystem::create_directory(directory_ / "sub");
  std::filesystem::create_symlink(data, directory_ / "link.data");
  std::filesystem::create_directory_symlink(directory_.path(), directory_ / "sub" / "loop");
  const std::pair<std::string, const char*> cases[] = {
      {"/etc/passwd", "absolute"},
      {data.string(), "absolute"},
      {"../model.onnx.data", "path"},
      {"sub/../model.onnx.data", "path"},
      {"link.data", "symbolic link"},
      {"sub/loop/model.onnx.data", "symbolic link"},
      {"sub", "regular file"},
      {"absent.data", "regular file"},
      {"", "name"},
      {std::string("model.onnx.data\0x", 17), "name"}};
  for (const auto& [location, text] : cases) {
    SetExternal(Initializer("layers.1.q.weight"), "location", location);
    Save();
    EXPECT_KVC_ERROR(Load(), kBadInput, text);
    EXPECT_KVC_ERROR(Load(), kBadInput, "layers.1.q.weight");
  }
}

TEST_F(LoaderTest, ExternalDataOutOfRange) {
  const std::pair<const char*, const char*> cases[] = {{"offset", "9223372036854775807"},
                                                       {"offset", "1099511627776"},
                                                       {"offset", "-4096"},
                                                       {"offset", "18446744073709551616"},
                                                       {"offset", "12x"},
                                                       {"offset", ""},
                                                       {"offset", "4098"},
                                                       {"length", "4"},
                                                       {"length", "-1"}};
  for (const auto& [key, value] : cases) {
    const std::string before = proto_.SerializeAsString();
    SetExternal(Initializer("layers.0.k_rebuild.weight"), key, value);
    Save();
    EXPECT_KVC_ERROR(Load(), kBadInput, "layers.0.k_rebuild.weight");
    proto_.ParseFromString(before);
  }
  Save();
  std::filesystem::resize_file(directory_ / "model.onnx.data", 5000);
  EXPECT_KVC_ERROR(Load(), kBadInput, "5000 bytes");
}

TEST_F(LoaderTest, ShapesThatAreNone) {
  onnx::TensorProto& tensor = Initializer("layers.0.o.weight");
  for (const int64_t dim : {int64_t{-1}, int64_t{1} << 62, int64_t{1} << 40}) {
    tensor.set_dims(0, dim);
    Save();
    EXPECT_KVC_ERROR(Load(), kBadInput, "layers.0.o.weight");
  }
  tensor.set_dims(0, 32);
  tensor.set_data_type(onnx::TensorProto::STRING);
  Save();
  EXPECT_KVC_ERROR(Load(), kUnsupported, "layers.0.o.weight");
}

TEST_F(LoaderTest, InlineTensorsOfTheWrongSize) {
  onnx::TensorProto& tensor = Initializer("const.axes_1_2");
  tensor.set_dims(0, 1000000);
  Save();
  EXPECT_KVC_ERROR(Load(), kBadInput, "const.axes_1_2");
}

TEST_F(LoaderTest, TwoInitializersOfOneName) {
  *proto_.mutable_graph()->add_initializer() = Initializer("const.one");
  Save();
  EXPECT_KVC_ERROR(Load(), kBadInput, "const.one");
}

// The plan names the node that it cannot hold.
TEST_F(LoaderTest, GraphsThatThePlanCannotHold) {
  const auto broken = [&](const std::string& node,
                          const std::function<void(onnx::NodeProto&)>& change,
                          const std::string& text) {
    const std::string before = proto_.SerializeAsString();
    change(NodeOf(node));
    Save();
    try {
      Load();
      ADD_FAILURE() << "no error for " << node;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
      EXPECT_TRUE(error.kind() == ErrorKind::kBadInput || error.kind() == ErrorKind::kUnsupported)
          << error.what();
    }
    proto_.ParseFromString(before);
  };
  using Node = onnx::NodeProto;
  broken(
      "layers.0.sigmoid", [](Node& n) { n.set_op_type("Softplus"); }, "Softplus");
  broken(
      "layers.0.sigmoid", [](Node& n) { n.set_domain("evil"); }, "evil.Sigmoid");
  broken(
      "layers.1.q.matmul", [](Node& n) { n.set_input(0, "nowhere"); }, "nowhere");
  broken(
      "layers.1.q.matmul", [](Node& n) { n.clear_input(); }, "layers.1.q.matmul");
  broken(
      "layers.1.q.matmul", [](Node& n) { n.set_input(0, "layers.1.gate.matmul"); }, "earlier");
  broken(
      "layers.1.q.matmul", [](Node& n) { n.set_input(1, "layers.1.q.weight"); }, "transposed");
  broken(
      "layers.1.q.matmul", [](Node& n) { n.set_input(1, "layers.1.down.transpose"); }, "earlier");
  broken(
      "layers.1.down.matmul", [](Node& n) { n.set_input(1, "layers.0.q.transpose"); }, "[out, ");
  broken(
      "layers.0.mlp_norm", [](Node& n) { n.set_input(1, "layers.0.k_rebuild.weight"); },
      "k_rebuild");
  broken(
      "layers.0.attention", [](Node& n) { n.mutable_input()->RemoveLast(); }, "attention");
  broken(
      "layers.0.attention", [](Node& n) { n.clear_attribute(); }, "attribute");
  broken(
      "layers.0.attention",
      [](Node& n) {
        for (auto& attribute : *n.mutable_attribute()) {
          if (attribute.name() == "key_ranks") attribute.set_ints(0, 1000);
        }
      },
      "ranks");
  broken(
      "layers.1.attention",
      [](Node& n) {
        for (auto& attribute : *n.mutable_attribute()) {
          if (attribute.name() == "layer") attribute.set_i(1LL << 60);
        }
      },
      "layer");
}

TEST_F(LoaderTest, TwoActivationsBetweenLayers) {
  NodeOf("layers.1.attn_residual").set_input(0, "embedding.gather");
  Save();
  EXPECT_KVC_ERROR(Load(), kUnsupported, "layers.1.attention");
}

}  // namespace
}  // namespace kvc::runtime
