#pragma once
// The workspace of a pass on the processor.

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/view.h"
#include "kernels/matmul.h"
#include "runtime/backend.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/cpu/decode_batch.h"
#include "runtime/device.h"

namespace kvc::runtime {

class CpuActivations : public Activations {
 public:
  // `rounding`: of what meets weights.
  CpuActivations(std::shared_ptr<const CpuModel> model,
                 const ActivationSize& size,
                 Device& device,
                 kernels::InputRounding rounding);

  [[nodiscard]] const CpuModel& model() const { return *model_; }
  [[nodiscard]] const Plan& plan() const { return model_->plan(); }
  [[nodiscard]] kernels::InputRounding rounding() const { return rounding_; }
  // Takes the rows that are run next. Throws kBadShape for more than there is room for.
  void SetBatch(const RowBatch& batch);
  [[nodiscard]] const RowBatch& batch() const { return batch_; }
  [[nodiscard]] int64_t batch_rows() const { return std::ssize(batch_.positions); }
  // The activation between sections, all rows [rows, E].
  [[nodiscard]] MatrixF hidden() const;
  // Columns of a slot, but the logits', for the batch's rows.
  [[nodiscard]] MatrixF View(const Operand& operand) const;
  // Operand `index` of a layer's attention, and its output.
  [[nodiscard]] MatrixF AttentionIn(int64_t layer, size_t index) const;
  [[nodiscard]] MatrixF AttentionOut(int64_t layer) const;

  // Keeps the batch's queries q [rows, H * W] among those of all rows, if they are asked for.
  void KeepQueries(ConstMatrixF q);
  // Of the layer that was run last [rows, H * W]; no rows where they are not asked for.
  [[nodiscard]] ConstMatrixF prompt_queries() const;
  [[nodiscard]] DecodeBatch& decode() { return decode_; }

 private:
  std::shared_ptr<const CpuModel> model_;
  ActivationSize size_;
  kernels::InputRounding rounding_;
  RowBatch batch_;
  std::vector<const Step*> attentions_;  // [L]
  Buffer hidden_;                        // [rows, E]
  std::vector<Buffer> slots_;            // [slot][chunk, slot width]
  Buffer queries_;                       // [rows, widest queries]
  int64_t query_width_ = 0;              // of the layer that was run last
  DecodeBatch decode_;
};

}  // namespace kvc::runtime
