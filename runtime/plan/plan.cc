#include "runtime/plan/plan.h"

#include <algorithm>

#include "core/base/error.h"
#include "runtime/plan/lowering.h"
#include "runtime/plan/schedule.h"

namespace kvc::runtime {

const Tensor& TensorOf(const Graph& graph, const Plan& plan, DataId id) {
  KVC_CHECK(id.home == DataId::Home::kTensor && id.index < std::ssize(plan.tensors), kInternal,
            "plan: expected the id of a tensor, got another");
  const auto found = graph.initializers.find(plan.tensors[id.index]);
  KVC_CHECK(found != graph.initializers.end(), kInternal,
            "plan: expected the graph that it was made of, got one without {}",
            plan.tensors[id.index]);
  return found->second;
}

std::span<const float> FloatsOf(const Graph& graph, const Plan& plan, DataId id) {
  if (id.home == DataId::Home::kConstant) return plan.constants.at(id.index);
  const Tensor& tensor = TensorOf(graph, plan, id);
  KVC_CHECK(tensor.dtype == DType::kF32, kInternal, "plan: {}: expected floats, got another type",
            tensor.name);
  return {tensor.as<float>(), static_cast<size_t>(tensor.elements)};
}

const Tensor& FirstTensorOf(const Graph& graph, const Plan& plan, const LinearWeight& weight) {
  const Tensor& first = TensorOf(graph, plan, weight.tensors.front());
  const std::byte* end = first.data;
  for (const DataId id : weight.tensors) {
    const Tensor& tensor = TensorOf(graph, plan, id);
    KVC_CHECK(tensor.data == end && tensor.dtype == first.dtype, kInternal,
              "plan: expected {} to begin where the weight before it ends", tensor.name);
    end += tensor.elements * DTypeBytes(tensor.dtype);
  }
  return first;
}

int64_t RotationRow(const Plan& plan, int64_t position, int64_t length) {
  const bool is_long = plan.short_context > 0 && length > plan.short_context;
  return is_long ? position + plan.short_context : position;
}

std::vector<const Step*> AttentionStepsOf(const Plan& plan) {
  std::vector<const Step*> attentions(plan.attentions.size());
  for (const auto& section : plan.sections) {
    for (const Step& step : section) {
      if (step.kind == StepKind::kAttention) attentions[step.attention] = &step;
    }
  }
  return attentions;
}

size_t AttentionIndex(std::span<const Step> section) {
  const auto attention = std::ranges::find(section, StepKind::kAttention, &Step::kind);
  return static_cast<size_t>(attention - section.begin());
}

Plan PlanGraph(const Graph& graph) {
  LoweredGraph lowered = Lower(graph);
  FuseLinears(graph, lowered);
  return Schedule(std::move(lowered));
}

}  // namespace kvc::runtime
