#include "runtime/cuda/cuda_activations.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "runtime/cuda/decode_step.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/device_room.h"

namespace kvc::runtime {
namespace {

cuda::Rows FloatRows(float* data, int64_t rows, int64_t width, int64_t stride) {
  return {data, DType::kF32, rows, width, stride};
}

// For products of any of the plan's weights.
int64_t WorkspaceBytes(const Plan& plan, int64_t rows) {
  int64_t widest = 0;
  for (const LinearWeight& weight : plan.linears) widest = std::max(widest, weight.in);
  return static_cast<int64_t>(cuda::ProductWorkspaceBytes(rows, widest));
}

}  // namespace

CudaActivations::CudaActivations(std::shared_ptr<const CudaModel> model,
                                 const ActivationSize& size,
                                 CudaDevice& device,
                                 StepCounts& counts)
    : model_(std::move(model)),
      size_(size),
      device_(device),
      attentions_(AttentionStepsOf(plan())),
      tokens_(2 * size.chunk * static_cast<int64_t>(sizeof(int32_t)), device, nullptr),
      hidden_(size.rows * plan().model_width * kFloatBytes, device, nullptr),
      slots_(plan().slot_widths.size()),
      workspace_(WorkspaceBytes(plan(), size.chunk), device, nullptr),
      products_(DeviceMemory::Of(workspace_), static_cast<size_t>(workspace_.bytes())) {
  for (size_t slot = kLogitsSlot + 1; slot < slots_.size(); ++slot) {
    slots_[slot] = Buffer(size.chunk * plan().slot_widths[slot] * kFloatBytes, device, nullptr);
  }
  int64_t widest = 0;
  for (const Step* step : attentions_) widest = std::max(widest, step->in[0].width);
  if (size.prompt_queries) queries_ = Buffer(size.rows * widest * kFloatBytes, device, nullptr);
  if (size.steps) step_ = std::make_unique<DecodeStep>(plan(), size.rows, device, counts);
}

CudaActivations::~CudaActivations() = default;

void CudaActivations::SetBatch(const RowBatch& batch) {
  CheckFits(batch, size_);
  first_ = batch.first;
  if (!std::ranges::equal(positions_, batch.positions)) {
    device_.Upload(std::as_bytes(batch.positions), DeviceMemory::Ints(tokens_) + size_.chunk);
    positions_.assign(batch.positions.begin(), batch.positions.end());
  }
  if (!batch.ids.empty() && !std::ranges::equal(ids_, batch.ids)) {
    device_.Upload(std::as_bytes(batch.ids), DeviceMemory::Ints(tokens_));
    ids_.assign(batch.ids.begin(), batch.ids.end());
  }
}

const int32_t* CudaActivations::ids() const { return DeviceMemory::Ints(tokens_); }
const int32_t* CudaActivations::positions() const {
  return DeviceMemory::Ints(tokens_) + size_.chunk;
}

cuda::Rows CudaActivations::hidden() const {
  return FloatRows(DeviceMemory::Floats(hidden_), size_.rows, plan().model_width,
                   plan().model_width);
}

cuda::Rows CudaActivations::View(const Operand& operand) const {
  if (operand.slot == kHiddenSlot) {
    const int64_t stride = plan().model_width;
    return FloatRows(DeviceMemory::Floats(hidden_) + first_ * stride + operand.offset, batch_rows(),
                     operand.width, stride);
  }
  const int64_t stride =
      operand.slot == kLogitsSlot ? plan().vocab_size : plan().slot_widths[operand.slot];
  return FloatRows(DeviceMemory::Floats(slots_[operand.slot]) + operand.offset, batch_rows(),
                   operand.width, stride);
}

Buffer& CudaActivations::MakeLogits() {
  Buffer& logits = slots_[kLogitsSlot];
  // Graphs of steps name it, so there it never moves.
  const int64_t rows = size_.steps ? size_.rows : batch_rows();
  const int64_t bytes = rows * plan().vocab_size * kFloatBytes;
  if (logits.bytes() < bytes) logits = Buffer(bytes, device_, nullptr);
  return logits;
}

cuda::PrefillRoom CudaActivations::MakeSplitRoom(const cuda::PrefillRoomSize& size) {
  if (size.floats == 0) return {};
  if (split_partials_.bytes() < size.floats * kFloatBytes) {
    split_partials_ = Buffer(size.floats * kFloatBytes, device_, nullptr);
  }
  const int64_t counters = size.counters * static_cast<int64_t>(sizeof(int32_t));
  if (split_arrived_.bytes() < counters) {
    Buffer fresh(counters, device_, nullptr);
    cuda::FillZero(DeviceMemory::Of(fresh), static_cast<size_t>(counters), device_.stream());
    split_arrived_ = std::move(fresh);
  }
  return {DeviceMemory::Floats(split_partials_), DeviceMemory::Ints(split_arrived_)};
}

void CudaActivations::KeepQueries(const cuda::Rows& q) {
  if (!size_.prompt_queries) return;
  query_width_ = q.width;
  cuda::Copy(q,
             FloatRows(DeviceMemory::Floats(queries_) + first_ * q.width, q.rows, q.width, q.width),
             device_.stream());
}

cuda::Rows CudaActivations::AttentionIn(int64_t layer, size_t index) const {
  return View(attentions_[layer]->in[index]);
}

cuda::Rows CudaActivations::AttentionOut(int64_t layer) const {
  return View(attentions_[layer]->out);
}

cuda::Rows CudaActivations::prompt_queries() const {
  if (!size_.prompt_queries) return {};
  return FloatRows(DeviceMemory::Floats(queries_), size_.rows, query_width_, query_width_);
}

std::vector<float> CudaActivations::DownloadQueries() const {
  std::vector<float> queries;
  if (!size_.prompt_queries) return queries;
  queries.resize(static_cast<size_t>(size_.rows * query_width_));
  device_.ToHost(queries_, 0, queries.data(), std::ssize(queries) * kFloatBytes);
  return queries;
}

}  // namespace kvc::runtime
