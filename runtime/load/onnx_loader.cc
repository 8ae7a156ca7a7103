#include "runtime/load/onnx_loader.h"

#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

namespace fs = std::filesystem;

// Largest size of the model file. The graph itself is small; weights lie outside.
constexpr int64_t kMaxModelBytes = std::numeric_limits<int32_t>::max();

onnx::ModelProto Parse(const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const std::string origin = path.filename().string();
  KVC_CHECK(static_cast<int64_t>(bytes.size()) <= kMaxModelBytes, kBadInput,
            "{}: expected at most 2 GiB, got {} bytes; store weights as external data", origin,
            bytes.size());
  google::protobuf::io::ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream coded(&stream);
  onnx::ModelProto proto;
  KVC_CHECK(proto.ParseFromCodedStream(&coded) && coded.ConsumedEntireMessage(), kBadInput,
            "{}: expected an ONNX ModelProto, got bytes that do not parse; the file is truncated "
            "or of another kind",
            origin);
  KVC_CHECK(proto.has_graph(), kBadInput, "{}: expected a graph, got none", origin);
  return proto;
}

DType ElementType(const onnx::TensorProto& proto) {
  switch (proto.data_type()) {
    case onnx::TensorProto::FLOAT:
      return DType::kF32;
    case onnx::TensorProto::FLOAT16:
      return DType::kF16;
    case onnx::TensorProto::BFLOAT16:
      return DType::kBF16;
    case onnx::TensorProto::INT64:
      return DType::kI64;
    default:
      KVC_THROW(kUnsupported,
                "initializer \"{}\": expected float, float16, bfloat16 or int64, got ONNX type {}",
                proto.name(), proto.data_type());
  }
}

// Returns the product of the dimensions; throws for negative ones and products that overflow.
int64_t CountElements(const onnx::TensorProto& proto) {
  int64_t elements = 1;
  for (const int64_t dim : proto.dims()) {
    KVC_CHECK(dim >= 0 && !__builtin_mul_overflow(elements, dim, &elements) &&
                  elements <= std::numeric_limits<int64_t>::max() / 8,
              kBadInput, "initializer \"{}\": expected dimensions whose product is a size, got {}",
              proto.name(), dim);
  }
  return elements;
}

int64_t ParseOffset(const onnx::TensorProto& proto,
                    const std::string& key,
                    const std::string& text) {
  int64_t value = -1;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  KVC_CHECK(error == std::errc() && stop == end && value >= 0, kBadInput,
            "initializer \"{}\": external data {}: expected a number >= 0, got \"{}\"",
            proto.name(), key, text);
  return value;
}

// Checks that a path below the model's folder has no links: each component is examined, none
// followed.
void CheckLocation(const onnx::TensorProto& proto,
                   const fs::path& folder,
                   const std::string& text) {
  const fs::path location(text);
  const auto refuse = [&](const char* what) {
    KVC_THROW(kBadInput,
              "initializer \"{}\": external data: expected a file beside the model, got {} \"{}\"",
              proto.name(), what, text);
  };
  if (text.empty() || text.find('\0') != std::string::npos) refuse("the name");
  if (location.is_absolute() || location.has_root_path()) refuse("the absolute path");
  fs::path walked = folder;
  for (const fs::path& part : location) {
    if (part == "..") refuse("the path");
    walked /= part;
    std::error_code error;
    if (fs::is_symlink(fs::symlink_status(walked, error))) refuse("the symbolic link");
  }
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(walked, error))) refuse("no regular file");
}

// Turns a ModelProto into a Model; keeps what the tensors point into.
class Reader {
 public:
  explicit Reader(fs::path folder) : folder_(std::move(folder)) {}

  Model Read(const onnx::ModelProto& proto) {
    for (const auto& opset : proto.opset_import()) {
      model_.graph.opsets[opset.domain()] = opset.version();
    }
    for (const auto& entry : proto.metadata_props()) {
      model_.graph.metadata[entry.key()] = entry.value();
    }
    const onnx::GraphProto& graph = proto.graph();
    for (const auto& input : graph.input()) model_.graph.inputs.push_back(input.name());
    for (const auto& output : graph.output()) model_.graph.outputs.push_back(output.name());
    for (const auto& tensor : graph.initializer()) AddInitializer(tensor);
    for (const auto& node : graph.node()) model_.graph.nodes.push_back(ReadNode(node));
    for (const auto& function : proto.functions()) {
      Function& target = model_.graph.functions.emplace_back();
      target.domain = function.domain();
      target.name = function.name();
      for (const auto& node : function.node()) target.nodes.push_back(ReadNode(node));
    }
    return std::move(model_);
  }

 private:
  void AddInitializer(const onnx::TensorProto& proto) {
    Tensor tensor;
    tensor.name = proto.name();
    tensor.dtype = ElementType(proto);
    tensor.dims.assign(proto.dims().begin(), proto.dims().end());
    tensor.elements = CountElements(proto);
    const bool external = proto.data_location() == onnx::TensorProto::EXTERNAL;
    tensor.data = external ? External(proto, tensor) : Inline(proto, tensor);
    KVC_CHECK(model_.graph.initializers.emplace(tensor.name, tensor).second, kBadInput,
              "initializer \"{}\": expected one of this name, got two", tensor.name);
  }

  const std::byte* External(const onnx::TensorProto& proto, Tensor& tensor) {
    std::string location;
    int64_t offset = 0;
    int64_t length = -1;
    for (const auto& entry : proto.external_data()) {
      if (entry.key() == "location") location = entry.value();
      if (entry.key() == "offset") offset = ParseOffset(proto, "offset", entry.value());
      if (entry.key() == "length") length = ParseOffset(proto, "length", entry.value());
    }
    const int64_t bytes = tensor.elements * DTypeBytes(tensor.dtype);
    KVC_CHECK(
        length < 0 || length == bytes, kBadInput,
        "initializer \"{}\": external data: expected {} bytes for its shape, got a length of {}",
        tensor.name, bytes, length);
    CheckLocation(proto, folder_, location);
    auto it = model_.files.find(location);
    if (it == model_.files.end()) {
      it = model_.files.emplace(location, MappedFile(folder_ / location)).first;
    }
    const auto size = static_cast<int64_t>(it->second.bytes().size());
    KVC_CHECK(bytes <= size && offset <= size - bytes, kBadInput,
              "initializer \"{}\": external data: expected to end within the {} bytes of {}, got "
              "{} bytes at offset {}",
              tensor.name, size, location, bytes, offset);
    KVC_CHECK(offset % DTypeBytes(tensor.dtype) == 0, kBadInput,
              "initializer \"{}\": external data: expected an aligned offset, got {}", tensor.name,
              offset);
    tensor.file = &it->second;  // nodes of a map stay where they are
    tensor.offset = offset;
    return it->second.bytes().data() + offset;
  }

  const std::byte* Inline(const onnx::TensorProto& proto, const Tensor& tensor) {
    const auto bytes = static_cast<size_t>(tensor.elements * DTypeBytes(tensor.dtype));
    const void* source = nullptr;
    size_t stored = 0;
    if (proto.has_raw_data()) {
      source = proto.raw_data().data();
      stored = proto.raw_data().size();
    } else if (tensor.dtype == DType::kF32) {
      source = proto.float_data().data();
      stored = static_cast<size_t>(proto.float_data_size()) * sizeof(float);
    } else if (tensor.dtype == DType::kI64) {
      source = proto.int64_data().data();
      stored = static_cast<size_t>(proto.int64_data_size()) * sizeof(int64_t);
    }
    KVC_CHECK(stored == bytes, kBadInput,
              "initializer \"{}\": expected {} bytes for its shape, got {}", tensor.name, bytes,
              stored);
    // new[] aligns to 16 bytes, enough for every element type.
    model_.constants.push_back(std::make_unique<std::byte[]>(bytes));
    if (bytes > 0) std::memcpy(model_.constants.back().get(), source, bytes);
    return model_.constants.back().get();
  }

  static Node ReadNode(const onnx::NodeProto& proto) {
    Node node;
    node.op = proto.op_type();
    node.domain = proto.domain() == "ai.onnx" ? "" : proto.domain();
    node.inputs.assign(proto.input().begin(), proto.input().end());
    node.outputs.assign(proto.output().begin(), proto.output().end());
    node.name = proto.name();
    if (node.name.empty() && !node.outputs.empty()) node.name = node.outputs.front();
    for (const auto& attribute : proto.attribute()) ReadAttribute(attribute, node);
    return node;
  }

  // Attributes that only pass a function's own on (ref_attr_name) carry no value here.
  static void ReadAttribute(const onnx::AttributeProto& proto, Node& node) {
    if (!proto.ref_attr_name().empty()) return;
    switch (proto.type()) {
      case onnx::AttributeProto::INT:
        node.attributes[proto.name()] = static_cast<int64_t>(proto.i());
        return;
      case onnx::AttributeProto::FLOAT:
        node.attributes[proto.name()] = proto.f();
        return;
      case onnx::AttributeProto::STRING:
        node.attributes[proto.name()] = proto.s();
        return;
      case onnx::AttributeProto::INTS:
        node.attributes[proto.name()] =
            std::vector<int64_t>(proto.ints().begin(), proto.ints().end());
        return;
      default:
        // A body may hold constants as tensors; only operators in the plan's graph need values, and
        // none of those has an attribute of another type.
        return;
    }
  }

  fs::path folder_;
  Model model_;
};

}  // namespace

Model LoadOnnx(const fs::path& path) {
  const onnx::ModelProto proto = Parse(path);
  return Reader(path.parent_path()).Read(proto);
}

}  // namespace kvc::runtime
