#include <algorithm>
#include <utility>

#include "core/base/dtype.h"
#include "runtime/plan/lowering.h"

namespace kvc::runtime {
namespace {

// Returns true if `second` begins at the end of `first`, in the model's memory.
bool Adjacent(const Tensor& first, const Tensor& second) {
  const std::byte* end = first.data + first.elements * DTypeBytes(first.dtype);
  return first.dtype == second.dtype && first.dims[1] == second.dims[1] && end == second.data;
}

// Merges steps [begin, end), products of one input with adjacent weights, into the first.
void Merge(const Graph& graph, LoweredGraph& lowered, size_t begin, size_t end) {
  Plan& plan = lowered.plan;
  LoweredStep& first = lowered.steps[begin];
  const auto merged = static_cast<int64_t>(lowered.registers.size());
  int64_t width = 0;
  bool has_bias = false;
  for (size_t i = begin; i < end; ++i) {
    Register& part = lowered.registers[lowered.steps[i].out];
    part.parent = merged;
    part.offset = width;
    width += part.width;
    has_bias = has_bias || static_cast<bool>(lowered.steps[i].step.bias);
  }
  if (has_bias) {
    std::vector<float> bias(static_cast<size_t>(width), 0.0F);
    for (size_t i = begin; i < end; ++i) {
      const Register& part = lowered.registers[lowered.steps[i].out];
      const DataId source = lowered.steps[i].step.bias;
      if (source) std::ranges::copy(FloatsOf(graph, plan, source), bias.begin() + part.offset);
    }
    first.step.bias = {DataId::Home::kConstant, std::ssize(plan.constants)};
    plan.constants.push_back(std::move(bias));
  }
  LinearWeight& weight = plan.linears[first.step.linear];
  weight.out = width;
  for (size_t i = begin + 1; i < end; ++i) {
    weight.tensors.push_back(plan.linears[lowered.steps[i].step.linear].tensors.front());
  }
  lowered.registers.push_back({width, -1, 0});
  first.out = merged;
}

}  // namespace

void FuseLinears(const Graph& graph, LoweredGraph& lowered) {
  const auto weight_of = [&](const LoweredStep& step) -> const Tensor& {
    return TensorOf(graph, lowered.plan, lowered.plan.linears[step.step.linear].tensors.front());
  };
  std::vector<LoweredStep> kept;
  size_t i = 0;
  while (i < lowered.steps.size()) {
    size_t end = i + 1;
    const LoweredStep& first = lowered.steps[i];
    if (first.step.kind == StepKind::kLinear) {
      while (end < lowered.steps.size() && lowered.steps[end].step.kind == StepKind::kLinear &&
             lowered.steps[end].in == first.in &&
             Adjacent(weight_of(lowered.steps[end - 1]), weight_of(lowered.steps[end]))) {
        ++end;
      }
      if (end > i + 1) Merge(graph, lowered, i, end);
    }
    kept.push_back(std::move(lowered.steps[i]));
    i = end;
  }
  lowered.steps = std::move(kept);
  // Products that were merged into another one leave the list of weights.
  std::vector<LinearWeight> linears;
  for (LoweredStep& step : lowered.steps) {
    if (step.step.kind != StepKind::kLinear) continue;
    linears.push_back(lowered.plan.linears[step.step.linear]);
    step.step.linear = static_cast<int64_t>(linears.size()) - 1;
  }
  lowered.plan.linears = std::move(linears);
}

}  // namespace kvc::runtime
