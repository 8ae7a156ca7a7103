#include "runtime/cuda/cuda_model.h"

#include <set>
#include <span>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "runtime/cpu/output_grams.h"

namespace kvc::runtime {
namespace {

std::vector<DataId> NamedBy(const Step& step) {
  return {step.table, step.weight, step.bias, step.cos, step.sin, step.columns};
}

// Pairs that a layer's rebuilt keys turn.
int64_t HalfOf(const Graph& graph, const Plan& plan, const RebuildStep& step) {
  return step.cos ? TensorOf(graph, plan, step.cos).dims[1] : 0;
}

int64_t PackedBytes(const Graph& graph, const Plan& plan, const AttentionStep& step) {
  const int64_t half = HalfOf(graph, plan, step.rebuild);
  return step.num_kv_heads * static_cast<int64_t>(sizeof(uint32_t)) *
         cuda::PackedLatentWords(step.stored_width, step.head_width, half);
}

}  // namespace

CudaModel::CudaModel(const Graph& graph, const Plan& plan, CudaDevice& device)
    : graph_(graph), plan_(plan), device_(device), grams_(plan.attentions.size()) {
  const DeviceTurn turn(device_);
  CheckRoom();
  for (const LinearWeight& weight : plan.linears) {
    const DType dtype = TensorOf(graph, plan, weight.tensors.front()).dtype;
    linears_.push_back({OnDevice(SourceOf(weight)), dtype, weight.out, weight.in, weight.in});
  }
  for (const auto& section : plan.sections) {
    std::vector<DeviceStepData>& data = sections_.emplace_back();
    for (const Step& step : section) data.push_back(Resolve(step));
  }
  for (const AttentionStep& step : plan.attentions) latents_.push_back(LatentsOf(step));
  device_.Synchronize();
}

CudaModel::Source CudaModel::SourceOf(DataId id) const {
  if (id.home == DataId::Home::kConstant) {
    const std::span<const float> floats = FloatsOf(graph_, plan_, id);
    return {floats.data(), std::ssize(floats) * static_cast<int64_t>(sizeof(float))};
  }
  const Tensor& tensor = TensorOf(graph_, plan_, id);
  return {tensor.data, tensor.elements * DTypeBytes(tensor.dtype)};
}

CudaModel::Source CudaModel::SourceOf(const LinearWeight& weight) const {
  const Tensor& first = FirstTensorOf(graph_, plan_, weight);
  return {first.data, weight.out * weight.in * DTypeBytes(first.dtype)};
}

void CudaModel::CheckRoom() const {
  std::set<Source> sources;
  const auto add = [&](DataId id) {
    if (id) sources.insert(SourceOf(id));
  };
  for (const LinearWeight& weight : plan_.linears) sources.insert(SourceOf(weight));
  for (const auto& section : plan_.sections) {
    for (const Step& step : section) {
      for (const DataId id : NamedBy(step)) add(id);
    }
  }
  size_t need = 0;
  for (const AttentionStep& step : plan_.attentions) {
    if (!step.latent) continue;
    add(step.rebuild.cos);
    add(step.rebuild.sin);
    need += static_cast<size_t>(PackedBytes(graph_, plan_, step));
  }
  for (const auto& [data, bytes] : sources) need += static_cast<size_t>(bytes);
  const auto have = static_cast<size_t>(device_.FreeBytes().value());
  KVC_CHECK(need <= have, kDevice,
            "device memory: expected {} free bytes for the model's weights, got {}; use --device "
            "cpu, or --dtype bf16 when exporting",
            need, have);
}

const void* CudaModel::OnDevice(Source source) {
  auto [place, fresh] = uploaded_.try_emplace(source);
  if (fresh) {
    const auto bytes = static_cast<size_t>(source.second);
    place->second = cuda::DeviceBuffer(bytes);
    cuda::CopyToDevice(place->second.data(), source.first, bytes, device_.stream());
  }
  return place->second.data();
}

template <class T>
const T* CudaModel::OnDevice(DataId id) {
  if (!id) return nullptr;
  (void)FloatsOf(graph_, plan_, id);  // throws for data of another type
  return static_cast<const T*>(OnDevice(SourceOf(id)));
}

cuda::RotationTable CudaModel::RotationOf(DataId cos, DataId sin) {
  if (!cos) return {};
  return {OnDevice<float>(cos), OnDevice<float>(sin), TensorOf(graph_, plan_, cos).dims[1]};
}

DeviceStepData CudaModel::Resolve(const Step& step) {
  DeviceStepData data;
  if (step.table) {
    const Tensor& table = TensorOf(graph_, plan_, step.table);
    data.table = {OnDevice(SourceOf(step.table)), table.dtype, table.dims[0], table.dims[1],
                  table.dims[1]};
  }
  data.weight = OnDevice<float>(step.weight);
  data.bias = OnDevice<float>(step.bias);
  data.columns = OnDevice<float>(step.columns);
  data.rotation = RotationOf(step.cos, step.sin);
  if (!step.pairs.empty()) {
    const std::vector<int32_t> pairs(step.pairs.begin(), step.pairs.end());
    cuda::DeviceBuffer& own = pairs_.emplace_back(pairs.size() * sizeof(int32_t));
    device_.Upload(std::as_bytes(std::span(pairs)), own.data());
    data.pairs = static_cast<const int32_t*>(own.data());
  }
  return data;
}

std::vector<cuda::LatentKeys> CudaModel::LatentsOf(const AttentionStep& step) {
  std::vector<cuda::LatentKeys> latents;
  if (!step.latent) return latents;
  const RebuildStep& named = step.rebuild;
  const auto floats = [&](DataId id) {
    return id ? FloatsOf(graph_, plan_, id) : std::span<const float>();
  };
  const std::span<const float> bias = floats(named.bias);
  cuda::LatentFactors factors;
  factors.norm_weight = floats(named.norm_weight).data();
  factors.matrix_stride = factors.rank = step.stored_width;
  factors.width = step.head_width;
  factors.half = HalfOf(graph_, plan_, named);
  for (int64_t g = 0; g < step.num_kv_heads; ++g) {
    factors.matrix = floats(named.matrix).data() + g * step.head_width * step.stored_width;
    factors.bias = bias.empty() ? nullptr : bias.data() + g * step.head_width;
    const std::vector<uint32_t> packed = cuda::PackLatentKeys(factors);
    cuda::DeviceBuffer& own = packed_.emplace_back(packed.size() * sizeof(uint32_t));
    device_.Upload(std::as_bytes(std::span(packed)), own.data());
    cuda::LatentKeys& keys = latents.emplace_back();
    keys.packed = static_cast<const uint32_t*>(own.data());
    keys.rotation = RotationOf(named.cos, named.sin);
    keys.rank = static_cast<int32_t>(step.stored_width);
    keys.width = static_cast<int32_t>(step.head_width);
    keys.places = static_cast<int32_t>(cuda::LatentPlaces(factors.width, factors.half));
    keys.norm_epsilon = factors.norm_weight != nullptr ? named.norm_epsilon : 0.0F;
  }
  return latents;
}

cuda::RotationTable CudaModel::query_rotation(int64_t layer) const {
  const std::vector<Step>& section = plan_.sections[1 + layer];
  for (size_t i = 0; i < section.size(); ++i) {
    if (section[i].kind == StepKind::kRope) return sections_[1 + layer][i].rotation;
  }
  return {};
}

const float* CudaModel::output_grams(int64_t layer, ThreadPool& pool) const {
  const DeviceTurn turn(device_);
  cuda::DeviceBuffer& own = grams_[layer];
  if (own.data() == nullptr) {
    const LinearWeight& weight = plan_.linears[OutputProjection(plan_, layer)];
    const DType dtype = TensorOf(graph_, plan_, weight.tensors.front()).dtype;
    const OutputGrams grams = MakeOutputGrams(
        {static_cast<const std::byte*>(SourceOf(weight).first), dtype, weight.out, weight.in},
        plan_.attentions[layer].num_heads, pool);
    cuda::DeviceBuffer fresh(grams.storage.size() * sizeof(float));
    device_.Upload(std::as_bytes(std::span(grams.storage)), fresh.data());
    own = std::move(fresh);
  }
  return static_cast<const float*>(own.data());
}

const CpuModel& CudaModel::on_host(ThreadPool& pool) const {
  const std::lock_guard<std::mutex> guard(host_mutex_);
  if (host_ == nullptr) host_ = std::make_unique<CpuModel>(graph_, plan_, false, pool);
  return *host_;
}

}  // namespace kvc::runtime
