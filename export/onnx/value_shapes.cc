#include "export/onnx/value_shapes.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "export/onnx/graph_builder.h"

namespace kvc::onnx_export {
namespace {

using Dim = std::variant<int64_t, std::string>;
using Dims = std::vector<Dim>;

struct Value {
  DType dtype = DType::kF32;
  Dims dims;
};

const Attribute& Find(const Node& node, std::string_view name) {
  const auto it = std::find_if(node.attributes.begin(), node.attributes.end(),
                               [&](const Attribute& attribute) { return attribute.name == name; });
  KVC_CHECK(it != node.attributes.end(), kInternal, "{}: expected the attribute {}", node.name,
            name);
  return *it;
}

int64_t IntOf(const Node& node, std::string_view name) {
  return std::get<int64_t>(Find(node, name).value);
}

// Returns an axis counted from the front.
size_t Axis(int64_t axis, size_t rank) {
  return static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(rank) : axis);
}

// Walks over the nodes in order and remembers what each gives.
class ShapeWalk {
 public:
  explicit ShapeWalk(const Graph& graph) {
    for (const ValueInfo& input : graph.inputs) values_[input.name] = {input.dtype, input.dims};
    for (const Weight& weight : graph.weights) {
      values_[weight.name] = {weight.dtype, {weight.dims.begin(), weight.dims.end()}};
    }
    for (const Constant& constant : graph.constants) {
      values_[constant.name] = {DType::kI64, {constant.dims.begin(), constant.dims.end()}};
      constants_[constant.name] = constant.values;
    }
  }

  // Returns the first output of the node, which is the only one but for a cache node.
  const Value& Visit(const Node& node) {
    Value result = node.domain.empty() ? Standard(node) : Function(node);
    return values_[node.outputs[0]] = std::move(result);
  }

 private:
  const Value& Input(const Node& node, size_t i) const {
    const auto it = values_.find(node.inputs.at(i));
    KVC_CHECK(it != values_.end(), kInternal, "{}: expected a value \"{}\" before it", node.name,
              node.inputs[i]);
    return it->second;
  }
  const std::vector<int64_t>& ConstantInput(const Node& node, size_t i) const {
    const auto it = constants_.find(node.inputs.at(i));
    KVC_CHECK(it != constants_.end(), kInternal, "{}: expected a constant, got \"{}\"", node.name,
              node.inputs[i]);
    return it->second;
  }

  Value Standard(const Node& node);
  Value Function(const Node& node) const;
  Value Broadcast(const Node& node);
  Value Gather(const Node& node);
  Value Range(const Node& node) const;
  Value Unsqueeze(const Node& node) const;
  Value Reshape(const Node& node) const;
  Value Transpose(const Node& node) const;
  Value MatMul(const Node& node) const;

  std::map<std::string, Value> values_;
  std::map<std::string, std::vector<int64_t>> constants_;
  // Results of Shape; sizes taken out of them; differences of two sizes, by the names of both.
  std::map<std::string, Dims> shapes_;
  std::map<std::string, Dim> sizes_;
  std::map<std::string, std::pair<std::string, std::string>> differences_;
};

Value ShapeWalk::Standard(const Node& node) {
  static const std::set<std::string_view> kLikeInput = {
      "CumSum", "Gelu", "LayerNormalization", "RMSNormalization", "RotaryEmbedding", "Sigmoid"};
  static const std::set<std::string_view> kBroadcast = {
      "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
      "Max", "Min", "Mul", "Or",    "Sub"};
  if (kLikeInput.contains(node.op)) return Input(node, 0);
  if (kBroadcast.contains(node.op)) return Broadcast(node);
  if (node.op == "Cast") {
    const int64_t to = IntOf(node, "to");
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kBool}) {
      if (OnnxElementType(dtype) == to) return {dtype, Input(node, 0).dims};
    }
  }
  if (node.op == "Shape") {
    shapes_[node.outputs[0]] = Input(node, 0).dims;
    return {DType::kI64, {static_cast<int64_t>(Input(node, 0).dims.size())}};
  }
  if (node.op == "Gather") return Gather(node);
  if (node.op == "Range") return Range(node);
  if (node.op == "Unsqueeze") return Unsqueeze(node);
  if (node.op == "Reshape") return Reshape(node);
  if (node.op == "Transpose") return Transpose(node);
  if (node.op == "MatMul") return MatMul(node);
  KVC_THROW(kInternal, "{}: no rule for the shape of {}", node.name, node.op);
}

// The com.kvc functions. A cache node's second and third outputs are the graph's.
Value ShapeWalk::Function(const Node& node) const {
  Value value = Input(node, 0);
  if (node.op == kPairFunction || node.op == kRowFunction) return value;
  const int64_t heads = IntOf(node, "num_heads");
  const int64_t kv_heads = IntOf(node, "num_kv_heads");
  // HeadProjection: weight [G*R, D]. The cache functions: value [B, S, G*D].
  const Dim rows =
      node.op == kProjectionFunction ? Input(node, 1).dims.front() : Input(node, 2).dims.back();
  value.dims.back() = heads * (std::get<int64_t>(rows) / kv_heads);
  return value;
}

Value ShapeWalk::Broadcast(const Node& node) {
  static const std::set<std::string_view> kCompares = {"Equal", "Greater", "GreaterOrEqual", "Less",
                                                       "LessOrEqual"};
  const Value& a = Input(node, 0);
  const Value& b = Input(node, 1);
  if (node.op == "Sub" && sizes_.contains(node.inputs[0]) && sizes_.contains(node.inputs[1])) {
    differences_[node.outputs[0]] = {node.inputs[0], node.inputs[1]};
  }
  const bool a_longer = a.dims.size() >= b.dims.size();
  Value value = {kCompares.contains(node.op) ? DType::kBool : a.dtype, a_longer ? a.dims : b.dims};
  const Dims& other = a_longer ? b.dims : a.dims;
  for (size_t i = 1; i <= other.size(); ++i) {
    Dim& dim = value.dims[value.dims.size() - i];
    const Dim& with = other[other.size() - i];
    if (dim == Dim(int64_t{1})) dim = with;
    KVC_CHECK(dim == with || with == Dim(int64_t{1}), kInternal,
              "{}: expected shapes that broadcast, got others at axis -{}", node.name, i);
  }
  return value;
}

Value ShapeWalk::Gather(const Node& node) {
  const Value& data = Input(node, 0);
  const Dims& indices = Input(node, 1).dims;
  const size_t axis = Axis(IntOf(node, "axis"), data.dims.size());
  if (const auto shape = shapes_.find(node.inputs[0]); shape != shapes_.end()) {
    sizes_[node.outputs[0]] = shape->second.at(static_cast<size_t>(ConstantInput(node, 1).at(0)));
  }
  Value value = {data.dtype, {data.dims.begin(), data.dims.begin() + static_cast<int64_t>(axis)}};
  value.dims.insert(value.dims.end(), indices.begin(), indices.end());
  value.dims.insert(value.dims.end(), data.dims.begin() + static_cast<int64_t>(axis) + 1,
                    data.dims.end());
  return value;
}

// Range(0, size, 1) has `size` elements, Range(size - other, size, 1) has `other`.
Value ShapeWalk::Range(const Node& node) const {
  const auto difference = differences_.find(node.inputs[0]);
  const bool from_zero = difference == differences_.end();
  KVC_CHECK(
      from_zero ? ConstantInput(node, 0).at(0) == 0 : difference->second.first == node.inputs[1],
      kInternal, "{}: expected a range whose length is a size", node.name);
  const auto size = sizes_.find(from_zero ? node.inputs[1] : difference->second.second);
  KVC_CHECK(size != sizes_.end(), kInternal, "{}: expected a range up to a size", node.name);
  return {DType::kI64, {size->second}};
}

// The axes are those of the result.
Value ShapeWalk::Unsqueeze(const Node& node) const {
  const Value& input = Input(node, 0);
  const std::vector<int64_t>& axes = ConstantInput(node, 1);
  Value value = {input.dtype, {}};
  auto next = input.dims.begin();
  for (size_t axis = 0; axis < input.dims.size() + axes.size(); ++axis) {
    const bool added = std::count(axes.begin(), axes.end(), static_cast<int64_t>(axis)) > 0;
    value.dims.push_back(added ? Dim(int64_t{1}) : *next++);
  }
  return value;
}

// 0 keeps a dimension; -1 takes what is left of those that are not kept.
Value ShapeWalk::Reshape(const Node& node) const {
  const Value& input = Input(node, 0);
  const std::vector<int64_t>& shape = ConstantInput(node, 1);
  int64_t left = 1;
  for (size_t i = 0; i < input.dims.size(); ++i) {
    if (i < shape.size() && shape[i] == 0) continue;
    left *= std::get<int64_t>(input.dims[i]);
  }
  for (const int64_t size : shape) left /= size > 0 ? size : 1;
  Value value = {input.dtype, {}};
  for (size_t i = 0; i < shape.size(); ++i) {
    value.dims.push_back(shape[i] == 0 ? input.dims.at(i) : Dim(shape[i] < 0 ? left : shape[i]));
  }
  return value;
}

Value ShapeWalk::Transpose(const Node& node) const {
  const Value& input = Input(node, 0);
  Value value = {input.dtype, {}};
  for (const int64_t axis : std::get<std::vector<int64_t>>(Find(node, "perm").value)) {
    value.dims.push_back(input.dims.at(static_cast<size_t>(axis)));
  }
  return value;
}

// Rows times a matrix.
Value ShapeWalk::MatMul(const Node& node) const {
  Value value = Input(node, 0);
  const Dims& matrix = Input(node, 1).dims;
  KVC_CHECK(matrix.size() == 2 && value.dims.back() == matrix[0], kInternal,
            "{}: expected a matrix with as many rows as the input has columns", node.name);
  value.dims.back() = matrix[1];
  return value;
}

}  // namespace

std::vector<ValueInfo> InferValues(const Graph& graph) {
  std::set<std::string_view> outputs;
  for (const ValueInfo& output : graph.outputs) outputs.insert(output.name);
  ShapeWalk walk(graph);
  std::vector<ValueInfo> values;
  for (const Node& node : graph.nodes) {
    const Value& value = walk.Visit(node);
    if (outputs.contains(node.outputs[0])) continue;
    values.push_back({node.outputs[0], value.dtype, value.dims});
  }
  return values;
}

}  // namespace kvc::onnx_export
