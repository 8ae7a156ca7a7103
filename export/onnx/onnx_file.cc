#include "export/onnx/onnx_file.h"

#include <cstring>

#include <onnx/onnx_pb.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "export/onnx/graph_builder.h"

namespace kvc::onnx_export {
namespace {

// Fills in type and value; with a reference only name and type.
struct AttributeWriter {
  onnx::AttributeProto& proto;
  bool by_reference;

  void operator()(int64_t value) const {
    proto.set_type(onnx::AttributeProto::INT);
    if (!by_reference) {
      proto.set_i(value);
    }
  }
  void operator()(float value) const {
    proto.set_type(onnx::AttributeProto::FLOAT);
    if (!by_reference) {
      proto.set_f(value);
    }
  }
  void operator()(const std::string& value) const {
    proto.set_type(onnx::AttributeProto::STRING);
    if (!by_reference) {
      proto.set_s(value);
    }
  }
  void operator()(const std::vector<int64_t>& values) const {
    proto.set_type(onnx::AttributeProto::INTS);
    for (const int64_t value : values) {
      proto.add_ints(value);
    }
  }
};

void FillNode(const Node& node, onnx::NodeProto& proto) {
  proto.set_name(node.name);
  proto.set_op_type(node.op);
  if (!node.domain.empty()) {
    proto.set_domain(node.domain);
  }
  for (const std::string& input : node.inputs) {
    proto.add_input(input);
  }
  for (const std::string& output : node.outputs) {
    proto.add_output(output);
  }
  for (const Attribute& attribute : node.attributes) {
    onnx::AttributeProto& target = *proto.add_attribute();
    target.set_name(attribute.name);
    const bool by_reference = !attribute.reference.empty();
    if (by_reference) {
      target.set_ref_attr_name(attribute.reference);
    }
    std::visit(AttributeWriter{target, by_reference}, attribute.value);
  }
}

void FillValue(const ValueInfo& value, onnx::ValueInfoProto& proto) {
  proto.set_name(value.name);
  auto& tensor = *proto.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(static_cast<int32_t>(OnnxElementType(value.dtype)));
  for (const auto& dim : value.dims) {
    auto& target = *tensor.mutable_shape()->add_dim();
    if (const auto* number = std::get_if<int64_t>(&dim)) {
      target.set_dim_value(*number);
    } else {
      target.set_dim_param(std::get<std::string>(dim));
    }
  }
}

void FillConstant(const Constant& constant, onnx::TensorProto& proto) {
  proto.set_name(constant.name);
  proto.set_data_type(onnx::TensorProto::INT64);
  for (const int64_t dim : constant.dims) {
    proto.add_dims(dim);
  }
  std::string bytes(constant.values.size() * sizeof(int64_t), '\0');
  std::memcpy(bytes.data(), constant.values.data(), bytes.size());
  proto.set_raw_data(bytes);
}

void AddExternalKey(onnx::TensorProto& proto, const char* key, const std::string& value) {
  auto& entry = *proto.add_external_data();
  entry.set_key(key);
  entry.set_value(value);
}

void FillWeight(const Weight& weight, const std::string& data_file, onnx::TensorProto& proto) {
  proto.set_name(weight.name);
  proto.set_data_type(static_cast<int32_t>(OnnxElementType(weight.dtype)));
  for (const int64_t dim : weight.dims) {
    proto.add_dims(dim);
  }
  proto.set_data_location(onnx::TensorProto::EXTERNAL);
  AddExternalKey(proto, "location", data_file);
  AddExternalKey(proto, "offset", std::to_string(weight.offset));
  AddExternalKey(proto, "length", std::to_string(weight.bytes));
}

void FillFunction(const Function& function, onnx::FunctionProto& proto) {
  proto.set_name(function.name);
  proto.set_domain(kFunctionDomain);
  for (const std::string& input : function.inputs) {
    proto.add_input(input);
  }
  for (const std::string& output : function.outputs) {
    proto.add_output(output);
  }
  for (const std::string& attribute : function.attributes) {
    proto.add_attribute(attribute);
  }
  for (const Node& node : function.nodes) {
    FillNode(node, *proto.add_node());
  }
  auto& opset = *proto.add_opset_import();
  opset.set_domain("");
  opset.set_version(kOnnxOpset);
}

void FillGraph(const Graph& graph, const std::string& data_file, onnx::GraphProto& proto) {
  proto.set_name("decoder");
  for (const ValueInfo& input : graph.inputs) {
    FillValue(input, *proto.add_input());
  }
  for (const ValueInfo& output : graph.outputs) {
    FillValue(output, *proto.add_output());
  }
  for (const ValueInfo& value : graph.values) {
    FillValue(value, *proto.add_value_info());
  }
  for (const Constant& constant : graph.constants) {
    FillConstant(constant, *proto.add_initializer());
  }
  for (const Weight& weight : graph.weights) {
    FillWeight(weight, data_file, *proto.add_initializer());
  }
  for (const Node& node : graph.nodes) {
    FillNode(node, *proto.add_node());
  }
}

void AddOpset(onnx::ModelProto& model, const std::string& domain, int64_t version) {
  auto& opset = *model.add_opset_import();
  opset.set_domain(domain);
  opset.set_version(version);
}

}  // namespace

void WriteOnnxFile(const Graph& graph,
                   const std::string& data_file,
                   const std::string& producer_version,
                   const std::filesystem::path& path) {
  onnx::ModelProto model;
  model.set_ir_version(kOnnxIrVersion);
  model.set_producer_name("kvc");
  model.set_producer_version(producer_version);
  AddOpset(model, "", kOnnxOpset);
  AddOpset(model, kFunctionDomain, kFunctionOpset);
  FillGraph(graph, data_file, *model.mutable_graph());
  for (const Function& function : graph.functions) {
    FillFunction(function, *model.add_functions());
  }
  for (const auto& [key, value] : graph.metadata) {
    auto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
  }
  std::string bytes;
  KVC_CHECK(model.SerializeToString(&bytes), kInternal,
            "{}: the ONNX model could not be serialized", path.string());
  WriteFile(path, bytes);
}

}  // namespace kvc::onnx_export
