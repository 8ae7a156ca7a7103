#include "runtime/cpu/cpu_activations.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
namespace {

constexpr auto kFloatSize = static_cast<int64_t>(sizeof(float));

}  // namespace

CpuActivations::CpuActivations(std::shared_ptr<const CpuModel> model,
                               const ActivationSize& size,
                               Device& device,
                               kernels::InputRounding rounding)
    : model_(std::move(model)),
      size_(size),
      rounding_(rounding),
      attentions_(AttentionStepsOf(plan())),
      hidden_(size.rows * plan().model_width * kFloatSize, device, nullptr),
      slots_(plan().slot_widths.size()) {
  for (size_t slot = kLogitsSlot + 1; slot < slots_.size(); ++slot) {
    slots_[slot] = Buffer(size.chunk * plan().slot_widths[slot] * kFloatSize, device, nullptr);
  }
  int64_t widest = 0;
  for (const Step* step : attentions_) widest = std::max(widest, step->in[0].width);
  if (size.prompt_queries) queries_ = Buffer(size.rows * widest * kFloatSize, device, nullptr);
}

void CpuActivations::SetBatch(const RowBatch& batch) {
  CheckFits(batch, size_);
  batch_ = batch;
}

MatrixF CpuActivations::hidden() const {
  return {HostMemory::Floats(hidden_), size_.rows, plan().model_width};
}

MatrixF CpuActivations::View(const Operand& operand) const {
  if (operand.slot == kHiddenSlot) {
    return hidden().RowRange(batch_.first, batch_rows()).ColRange(operand.offset, operand.width);
  }
  KVC_CHECK(operand.slot != kLogitsSlot, kInternal, "activations: expected a slot, got logits");
  return {HostMemory::Floats(slots_[operand.slot]) + operand.offset, batch_rows(), operand.width,
          plan().slot_widths[operand.slot]};
}

MatrixF CpuActivations::AttentionIn(int64_t layer, size_t index) const {
  return View(attentions_[layer]->in[index]);
}

MatrixF CpuActivations::AttentionOut(int64_t layer) const { return View(attentions_[layer]->out); }

void CpuActivations::KeepQueries(ConstMatrixF q) {
  if (!size_.prompt_queries) return;
  query_width_ = q.cols;
  float* rows = HostMemory::Floats(queries_) + batch_.first * q.cols;
  for (int64_t t = 0; t < q.rows; ++t) std::copy_n(q.row(t), q.cols, rows + t * q.cols);
}

ConstMatrixF CpuActivations::prompt_queries() const {
  if (!size_.prompt_queries) return {};
  return {HostMemory::Floats(queries_), size_.rows, query_width_};
}

}  // namespace kvc::runtime
