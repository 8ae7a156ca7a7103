#include "runtime/cpu/cpu_model.h"

#include <algorithm>
#include <iterator>

#include "core/base/memory_left.h"

namespace kvc::runtime {
namespace {

int64_t BytesOf(const kernels::WeightView& view) {
  return view.out * view.in * DTypeBytes(view.dtype);
}

// Weights take memory of their own where this is a part of what is left; pages of a mapped file can
// be taken back, these cannot.
constexpr int64_t kShareOfMemory = 2;

// Floats are packed by kernels::PackedWeight, if they can be.
bool TakesOwnMemory(const kernels::WeightView& view) { return view.dtype != DType::kF32; }

}  // namespace

CpuModel::CpuModel(const Graph& graph, const Plan& plan, bool pack_weights, ThreadPool& pool)
    : graph_(graph), plan_(plan), grams_(plan.attentions.size()) {
  if (pack_weights) memory_ = WeightMemory(OwnBytes());
  for (const LinearWeight& weight : plan.linears) AddLinear(weight, pack_weights, pool);
  for (const auto& section : plan.sections) {
    std::vector<StepData>& data = sections_.emplace_back();
    for (const Step& step : section) data.push_back(Resolve(step));
  }
  for (const AttentionStep& step : plan.attentions) rebuilds_.push_back(RebuildsOf(step));
}

int64_t CpuModel::OwnBytes() const {
  int64_t bytes = 0;
  for (const LinearWeight& weight : plan_.linears) {
    const kernels::WeightView view = WeightOf(weight);
    if (TakesOwnMemory(view)) bytes += WeightMemory::PlaceBytes(BytesOf(view));
  }
  const int64_t left = MemoryLeft().value_or(0);
  return bytes <= left / kShareOfMemory ? bytes : 0;
}

void CpuModel::AddLinear(const LinearWeight& weight, bool pack_weights, ThreadPool& pool) {
  kernels::WeightView view = WeightOf(weight);
  if (TakesOwnMemory(view)) {
    const Tensor& first = FirstTensorOf(graph_, plan_, weight);
    const std::byte* own = memory_.Add(first, BytesOf(view), pool);
    if (own != nullptr) view.data = own;
  }
  views_.push_back(view);
  linears_.emplace_back(view, pool, kernels::PackOptions{.lossless_bf16 = pack_weights});
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

std::span<const kernels::KeyRebuild> CpuModel::rebuild(
    int64_t layer, const std::shared_ptr<const std::vector<LayerBases>>& bases) const {
  if (rebuilds_[layer].empty() || bases == nullptr || bases->at(layer).key_width == 0) {
    return rebuilds_[layer];
  }
  const std::lock_guard<std::mutex> guard(coordinates_mutex_);
  auto found = std::ranges::find(in_coordinates_, bases, &RebuildsOfBases::bases);
  if (found == in_coordinates_.end()) {
    in_coordinates_.push_back({bases, std::vector<LatentRebuilds>(rebuilds_.size())});
    found = std::prev(in_coordinates_.end());
  }
  LatentRebuilds& of_layer = found->layers[layer];
  if (of_layer.heads.empty())
    of_layer = RebuildsFromCoordinates(rebuilds_[layer], bases->at(layer), layer);
  return of_layer.heads;
}

std::span<const ConstMatrixF> CpuModel::output_grams(int64_t layer, ThreadPool& pool) const {
  const std::lock_guard<std::mutex> guard(grams_mutex_);
  OutputGrams& grams = grams_[layer];
  if (grams.matrices.empty()) {
    const kernels::WeightView& weight = views_[OutputProjection(plan_, layer)];
    grams = MakeOutputGrams(weight, plan_.attentions[layer].num_heads, pool);
  }
  return grams.matrices;
}

}  // namespace kvc::runtime
