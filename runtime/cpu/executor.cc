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

void RunNorm(const Step& step, const StepData& data, ConstMatrixF x, MatrixF y, ThreadPool& pool) {
  const int64_t width = x.cols / step.heads;
  const std::span<const float> weight(data.weight, static_cast<size_t>(width));
  if (step.kind == StepKind::kLayerNorm) {
    const std::span<const float> bias(data.bias, static_cast<size_t>(width));
    kernels::LayerNorm(x, weight, bias, step.epsilon, y, pool);
    return;
  }
  if (step.heads == 1) {
    kernels::RmsNorm(x, weight, step.epsilon, y, pool);
    return;
  }
  // A row's heads lie one after the other, which is a matrix [heads, width].
  if (x.rows < step.heads) {
    for (int64_t t = 0; t < x.rows; ++t) {
      kernels::RmsNorm(ConstMatrixF(x.row(t), step.heads, width), weight, step.epsilon,
                       MatrixF(y.row(t), step.heads, width), pool);
    }
    return;
  }
  for (int64_t h = 0; h < step.heads; ++h) {
    kernels::RmsNorm(x.ColRange(h * width, width), weight, step.epsilon,
                     y.ColRange(h * width, width), pool);
  }
}

void RunStep(
    const Step& step, const StepData& data, CpuActivations& x, MatrixF logits, ThreadPool& pool) {
  const RowBatch& batch = x.batch();
  const MatrixF out = step.out.slot == kLogitsSlot ? logits : x.View(step.out);
  const auto in = [&](size_t i) { return x.View(step.in[i]); };
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
    case StepKind::kMul: {
      const bool second_is_out = step.out == step.in[1];
      if (!second_is_out) Copy(in(0), out);
      const auto combine = step.kind == StepKind::kAdd ? kernels::Add : kernels::Multiply;
      combine(in(second_is_out ? 0 : 1), out, pool);
      return;
    }
    case StepKind::kSiluMul:
      kernels::SiluMul(in(0), in(1), out, pool);
      return;
    case StepKind::kGeluTanh:
      Copy(in(0), out);
      kernels::GeluTanh(out, pool);
      return;
    case StepKind::kGeluExact:
      Copy(in(0), out);
      kernels::GeluExact(out, pool);
      return;
    case StepKind::kRmsNorm:
    case StepKind::kLayerNorm:
      RunNorm(step, data, in(0), out, pool);
      return;
    case StepKind::kRope:
      Copy(in(0), out);
      kernels::Rope(out, step.heads, batch.positions, data.cos, data.sin, pool);
      return;
    case StepKind::kPairRope:
      Copy(in(0), out);
      kernels::RopePairs(out, step.pairs, batch.positions, data.cos, data.sin, pool);
      return;
    case StepKind::kProjectHeads:
      kernels::ProjectHeads(in(0), step.heads, data.columns, step.groups, data.bias, out, pool);
      return;
    case StepKind::kLinear:
      x.model().linear(step.linear).Apply(in(0), data.bias, out, pool, x.rounding());
      return;
    case StepKind::kAttention:
      break;
  }
  KVC_THROW(kInternal, "node \"{}\": step without a kernel", step.node);
}

}  // namespace

void RunSteps(
    int64_t section, SectionPart part, CpuActivations& x, MatrixF logits, ThreadPool& pool) {
  const std::vector<Step>& steps = x.plan().sections[section];
  const size_t middle = AttentionIndex(steps);
  const size_t begin = part == SectionPart::kBehindAttention ? middle + 1 : 0;
  const size_t end = part == SectionPart::kBeforeAttention ? middle : steps.size();
  for (size_t i = begin; i < end; ++i) {
    RunStep(steps[i], x.model().section(section)[i], x, logits, pool);
  }
}

}  // namespace kvc::runtime
