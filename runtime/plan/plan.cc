#include "runtime/plan/plan.h"

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

Plan PlanGraph(const Graph& graph) {
  LoweredGraph lowered = Lower(graph);
  FuseLinears(graph, lowered);
  return Schedule(std::move(lowered));
}

}  // namespace kvc::runtime
