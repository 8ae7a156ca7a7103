#include "runtime/plan/lowering_context.h"

#include <algorithm>
#include <utility>

namespace kvc::runtime {

bool IsFloat(const Tensor& tensor) {
  return tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
}

LoweringContext::LoweringContext(const Graph& graph) : graph_(graph) {
  for (const Node& node : graph.nodes) {
    for (const std::string& input : node.inputs) ++uses_[input];
  }
  for (const std::string& output : graph.outputs) ++uses_[output];
  for (const std::string& input : graph.inputs) {
    Value value;
    if (input == "input_ids") value.kind = Value::Kind::kTokenIds;
    if (input == "position_ids") value.kind = Value::Kind::kPositions;
    values_.emplace(input, value);
  }
  for (const auto& [name, tensor] : graph.initializers) {
    Value value;
    value.kind = Value::Kind::kWeight;
    value.tensor = &tensor;
    values_[name] = value;
  }
}

const Value& LoweringContext::Get(const Node& node, const std::string& name) const {
  const auto it = values_.find(name);
  RequireNode(it != values_.end(), node,
              "expected its inputs to be made by earlier nodes, got \"{}\"", name);
  return it->second;
}

const Value& LoweringContext::Input(const Node& node, size_t index) const {
  RequireNode(index < node.inputs.size(), node, "expected input {}, got {} inputs", index,
              node.inputs.size());
  return Get(node, node.inputs[index]);
}

const Value* LoweringContext::Output(const std::string& name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? nullptr : &it->second;
}

int64_t LoweringContext::Flat(const Node& node, size_t index) const {
  const Value& value = Input(node, index);
  SupportNode(value.kind == Value::Kind::kActivation && value.heads == 1, node,
              "expected an activation [batch, sequence, width] as input {}", index);
  return value.reg;
}

const Tensor& LoweringContext::Weight(const Node& node, size_t index) const {
  const Value& value = Input(node, index);
  SupportNode(value.kind == Value::Kind::kWeight && !value.transposed, node,
              "expected an initializer as input {}", index);
  return *value.tensor;
}

DataId LoweringContext::IdOf(const Tensor& tensor) {
  std::vector<std::string>& tensors = lowered_.plan.tensors;
  const auto [found, is_new] = tensor_ids_.emplace(tensor.name, std::ssize(tensors));
  if (is_new) tensors.push_back(tensor.name);
  return {DataId::Home::kTensor, found->second};
}

DataId LoweringContext::Vector(const Node& node, size_t index, int64_t width) {
  const Tensor& tensor = Weight(node, index);
  RequireNode(tensor.dtype == DType::kF32 && tensor.dims == std::vector<int64_t>({width}), node,
              "initializer {}: expected {} floats, got {} elements", tensor.name, width,
              tensor.elements);
  return IdOf(tensor);
}

bool LoweringContext::AtPositions(const Node& node, size_t index) const {
  return Input(node, index).kind ==
         (lowered_.plan.short_context > 0 ? Value::Kind::kRotationRows : Value::Kind::kPositions);
}

DataId LoweringContext::Table(const Node& node, size_t index, int64_t width) {
  const Tensor& tensor = Weight(node, index);
  RequireNode(tensor.dtype == DType::kF32 && tensor.dims.size() == 2 && tensor.dims[1] == width,
              node, "initializer {}: expected a float table [positions, {}]", tensor.name, width);
  RequireNode(tensor.dims[0] > lowered_.plan.short_context, node,
              "initializer {}: expected more than {} positions, got {}", tensor.name,
              lowered_.plan.short_context, tensor.dims[0]);
  LimitPositions(tensor.dims[0] - lowered_.plan.short_context);
  return IdOf(tensor);
}

void LoweringContext::LimitPositions(int64_t rows) {
  int64_t& limit = lowered_.plan.max_positions;
  limit = limit == 0 ? rows : std::min(limit, rows);
}

int64_t LoweringContext::uses(const std::string& name) const {
  const auto it = uses_.find(name);
  return it == uses_.end() ? 0 : it->second;
}

void LoweringContext::Define(const Node& node, const std::string& name, const Value& value) {
  RequireNode(values_.emplace(name, value).second, node,
              "expected a new name for its output, got \"{}\" again", name);
}

LoweredStep& LoweringContext::AddStep(
    const Node& node, StepKind kind, std::vector<int64_t> in, int64_t width, int64_t heads) {
  const auto reg = static_cast<int64_t>(lowered_.registers.size());
  lowered_.registers.push_back({width, -1, 0});
  Value value;
  value.kind = Value::Kind::kActivation;
  value.reg = reg;
  value.heads = heads;
  Define(node, node.outputs[0], value);
  LoweredStep& lowered = lowered_.steps.emplace_back();
  lowered.step.kind = kind;
  lowered.step.node = node.name;
  lowered.in = std::move(in);
  lowered.out = reg;
  return lowered;
}

}  // namespace kvc::runtime
