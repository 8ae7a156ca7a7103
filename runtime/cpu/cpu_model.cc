#include "runtime/cpu/cpu_model.h"

#include "core/base/error.h"

namespace kvc::runtime {

CpuModel::CpuModel(const Graph& graph, const Plan& plan, bool pack_weights, ThreadPool& pool)
    : graph_(graph), plan_(plan), grams_(plan.attentions.size()) {
  const kernels::PackOptions options = {.lossless_bf16 = pack_weights};
  for (const LinearWeight& weight : plan.linears) {
    linears_.emplace_back(WeightOf(weight), pool, options);
  }
  for (const auto& section : plan.sections) {
    std::vector<StepData>& data = sections_.emplace_back();
    for (const Step& step : section) data.push_back(Resolve(step));
  }
  for (const AttentionStep& step : plan.attentions) rebuilds_.push_back(RebuildsOf(step));
}

StepData CpuModel::QueryRotation(int64_t layer) const {
  const std::vector<Step>& section = plan_.sections[1 + layer];
  for (size_t i = 0; i < section.size(); ++i) {
    if (section[i].kind == StepKind::kRope) return sections_[1 + layer][i];
  }
  return {};
}

ConstMatrixF CpuModel::TableOf(DataId id) const {
  const Tensor& tensor = TensorOf(graph_, plan_, id);
  return {FloatsOf(graph_, plan_, id).data(), tensor.dims[0], tensor.dims[1]};
}

kernels::WeightView CpuModel::WeightOf(const LinearWeight& weight) const {
  const Tensor& first = FirstTensorOf(graph_, plan_, weight);
  return {first.data, first.dtype, weight.out, weight.in};
}

StepData CpuModel::Resolve(const Step& step) const {
  StepData data;
  if (step.table) data.table = &TensorOf(graph_, plan_, step.table);
  if (step.weight) data.weight = FloatsOf(graph_, plan_, step.weight).data();
  if (step.bias) data.bias = FloatsOf(graph_, plan_, step.bias).data();
  if (step.cos) data.cos = TableOf(step.cos);
  if (step.sin) data.sin = TableOf(step.sin);
  if (step.columns) {
    const std::span<const float> columns = FloatsOf(graph_, plan_, step.columns);
    const int64_t width = step.out.width / step.heads;  // R
    data.columns = {columns.data(), std::ssize(columns) / width, width};
  }
  return data;
}

std::vector<kernels::KeyRebuild> CpuModel::RebuildsOf(const AttentionStep& step) const {
  std::vector<kernels::KeyRebuild> rebuilds;
  if (!step.latent) return rebuilds;
  const RebuildStep& named = step.rebuild;
  const float* matrix = FloatsOf(graph_, plan_, named.matrix).data();
  const float* bias = named.bias ? FloatsOf(graph_, plan_, named.bias).data() : nullptr;
  kernels::KeyRebuild rebuild;
  if (named.cos) rebuild.cos = TableOf(named.cos);
  if (named.sin) rebuild.sin = TableOf(named.sin);
  if (named.norm_weight) {
    rebuild.norm_weight = FloatsOf(graph_, plan_, named.norm_weight).data();
    rebuild.norm_epsilon = named.norm_epsilon;
  }
  const int64_t group_heads = step.num_kv_heads / std::ssize(step.key_ranks);
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    rebuild.rebuild = {matrix + g * step.head_width * step.stored_width, step.head_width,
                       step.key_ranks[g / group_heads], step.stored_width};
    rebuild.bias = bias != nullptr ? bias + g * step.head_width : nullptr;
    rebuild.units = kernels::FindUnitRows(rebuild.rebuild);
    rebuilds.push_back(rebuild);
  }
  return rebuilds;
}

std::span<const ConstMatrixF> CpuModel::output_grams(int64_t layer, ThreadPool& pool) const {
  const std::lock_guard<std::mutex> guard(grams_mutex_);
  OutputGrams& grams = grams_[layer];
  if (grams.matrices.empty()) {
    const LinearWeight& weight = plan_.linears[OutputProjection(plan_, layer)];
    grams = MakeOutputGrams(WeightOf(weight), plan_.attentions[layer].num_heads, pool);
  }
  return grams.matrices;
}

}  // namespace kvc::runtime
