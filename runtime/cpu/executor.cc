#include "runtime/cpu/executor.h"

#include <algorithm>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "kernels/elementwise.h"
#include "kernels/heads.h"

namespace kvc::runtime {
namespace {

void Copy(ConstMatrixF from, MatrixF to) {
  if (from.data == to.data) return;
  for (int64_t t = 0; t < from.rows; ++t) std::copy_n(from.row(t), from.cols, to.row(t));
}

void Embed(const Tensor& table, std::span<const int32_t> ids, MatrixF out) {
  const int64_t row_bytes = out.cols * DTypeBytes(table.dtype);
  for (int64_t t = 0; t < out.rows; ++t) {
    ConvertToFloat(table.dtype, table.data + ids[t] * row_bytes, out.cols, out.row(t));
  }
}

}  // namespace

Executor::Executor(const CpuModel& model, ThreadPool& pool)
    : model_(model), plan_(model.plan()), pool_(pool), slots_(plan_.slot_widths.size()) {}

void Executor::Reserve(int64_t rows) {
  if (rows <= reserved_rows_) return;
  for (size_t slot = kLogitsSlot + 1; slot < slots_.size(); ++slot) {
    slots_[slot].resize(static_cast<size_t>(rows * plan_.slot_widths[slot]));
  }
  reserved_rows_ = rows;
}

MatrixF Executor::View(const Operand& operand, const RowBatch& batch) {
  if (operand.slot == kLogitsSlot) return batch.logits;
  if (operand.slot == kHiddenSlot) return batch.hidden.ColRange(operand.offset, operand.width);
  const int64_t stride = plan_.slot_widths[operand.slot];
  return {slots_[operand.slot].data() + operand.offset, batch.hidden.rows, operand.width, stride};
}

void Executor::RunSection(int64_t section,
                          const RowBatch& batch,
                          const AttentionFunction& attention) {
  Reserve(batch.hidden.rows);
  const std::vector<Step>& steps = plan_.sections[section];
  for (size_t i = 0; i < steps.size(); ++i) {
    RunStep(steps[i], model_.section(section)[i], batch, attention);
  }
}

void Executor::RunNorm(const Step& step, const StepData& data, ConstMatrixF x, MatrixF y) {
  const int64_t width = x.cols / step.heads;
  const std::span<const float> weight(data.weight, static_cast<size_t>(width));
  if (step.kind == StepKind::kLayerNorm) {
    const std::span<const float> bias(data.bias, static_cast<size_t>(width));
    kernels::LayerNorm(x, weight, bias, step.epsilon, y, pool_);
    return;
  }
  if (step.heads == 1) {
    kernels::RmsNorm(x, weight, step.epsilon, y, pool_);
    return;
  }
  // A row's heads lie one after the other, which is a matrix [heads, width].
  if (x.rows < step.heads) {
    for (int64_t t = 0; t < x.rows; ++t) {
      kernels::RmsNorm(ConstMatrixF(x.row(t), step.heads, width), weight, step.epsilon,
                       MatrixF(y.row(t), step.heads, width), pool_);
    }
    return;
  }
  for (int64_t h = 0; h < step.heads; ++h) {
    kernels::RmsNorm(x.ColRange(h * width, width), weight, step.epsilon,
                     y.ColRange(h * width, width), pool_);
  }
}

void Executor::RunStep(const Step& step,
                       const StepData& data,
                       const RowBatch& batch,
                       const AttentionFunction& attention) {
  const MatrixF out = View(step.out, batch);
  const auto in = [&](size_t i) { return View(step.in[i], batch); };
  switch (step.kind) {
    case StepKind::kEmbedTokens:
      Embed(*data.table, batch.ids, out);
      return;
    case StepKind::kEmbedPositions:
      Embed(*data.table, batch.positions, out);
      return;
    case StepKind::kCopy:
      Copy(in(0), out);
      return;
    case StepKind::kAdd:
      if (step.out == step.in[1]) {
        kernels::Add(in(0), out, pool_);
        return;
      }
      Copy(in(0), out);
      kernels::Add(in(1), out, pool_);
      return;
    case StepKind::kSiluMul:
      kernels::SiluMul(in(0), in(1), out, pool_);
      return;
    case StepKind::kGeluTanh:
      Copy(in(0), out);
      kernels::GeluTanh(out, pool_);
      return;
    case StepKind::kGeluExact:
      Copy(in(0), out);
      kernels::GeluExact(out, pool_);
      return;
    case StepKind::kRmsNorm:
    case StepKind::kLayerNorm:
      RunNorm(step, data, in(0), out);
      return;
    case StepKind::kRope:
      Copy(in(0), out);
      kernels::Rope(out, step.heads, batch.positions, data.cos, data.sin, pool_);
      return;
    case StepKind::kPairRope:
      Copy(in(0), out);
      kernels::RopePairs(out, step.pairs, batch.positions, data.cos, data.sin, pool_);
      return;
    case StepKind::kProjectHeads:
      kernels::ProjectHeads(in(0), step.heads, data.columns, step.groups, data.bias, out, pool_);
      return;
    case StepKind::kLinear:
      model_.linear(step.linear).Apply(in(0), data.bias, out, pool_);
      return;
    case StepKind::kAttention:
      attention(plan_.attentions[step.attention], in(0), in(1), in(2), out);
      return;
  }
  KVC_THROW(kInternal, "node \"{}\": step without a kernel", step.node);
}

}  // namespace kvc::runtime
