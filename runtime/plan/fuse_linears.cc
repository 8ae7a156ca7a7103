#include <algorithm>
#include <utility>

#include "core/base/dtype.h"
#include "runtime/plan/lowering.h"

namespace kvc::runtime {
namespace {

bool Adjacent(const kernels::WeightView& first, const kernels::WeightView& second) {
  const auto* end =
      static_cast<const std::byte*>(first.data) + first.out * first.in * DTypeBytes(first.dtype);
  return first.dtype == second.dtype && first.in == second.in && end == second.data;
}

// Merges steps [begin, end), products of one input with adjacent weights, into the first.
void Merge(LoweredGraph& lowered, size_t begin, size_t end) {
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
    has_bias = has_bias || lowered.steps[i].step.bias != nullptr;
  }
  if (has_bias) {
    auto bias = std::make_unique<float[]>(static_cast<size_t>(width));  // zeros
    for (size_t i = begin; i < end; ++i) {
      const Register& part = lowered.registers[lowered.steps[i].out];
      const float* source = lowered.steps[i].step.bias;
      if (source != nullptr) std::copy_n(source, part.width, bias.get() + part.offset);
    }
    first.step.bias = bias.get();
    plan.constants.push_back(std::move(bias));
  }
  plan.linears[first.step.linear].out = width;
  lowered.registers.push_back({width, -1, 0});
  first.out = merged;
}

}  // namespace

void FuseLinears(LoweredGraph& lowered) {
  std::vector<LoweredStep> kept;
  size_t i = 0;
  while (i < lowered.steps.size()) {
    size_t end = i + 1;
    const LoweredStep& first = lowered.steps[i];
    if (first.step.kind == StepKind::kLinear) {
      while (end < lowered.steps.size() && lowered.steps[end].step.kind == StepKind::kLinear &&
             lowered.steps[end].in == first.in &&
             Adjacent(lowered.plan.linears[lowered.steps[end - 1].step.linear],
                      lowered.plan.linears[lowered.steps[end].step.linear])) {
        ++end;
      }
      if (end > i + 1) Merge(lowered, i, end);
    }
    kept.push_back(std::move(lowered.steps[i]));
    i = end;
  }
  lowered.steps = std::move(kept);
  // Products that were merged into another one leave the list of weights.
  std::vector<kernels::WeightView> linears;
  for (LoweredStep& step : lowered.steps) {
    if (step.step.kind != StepKind::kLinear) continue;
    linears.push_back(lowered.plan.linears[step.step.linear]);
    step.step.linear = static_cast<int64_t>(linears.size()) - 1;
  }
  lowered.plan.linears = std::move(linears);
}

}  // namespace kvc::runtime
