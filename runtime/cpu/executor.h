#pragma once
// Runs the steps of a section over rows of tokens.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// Rows of one run. Row r is token ids[r] at positions[r] of its sequence.
struct RowBatch {
  std::span<const int32_t> ids;        // used by the first section alone
  std::span<const int32_t> positions;  // [rows]
  MatrixF hidden;                      // [rows, E] activation between sections, read and written
  MatrixF logits;                      // [rows, V], written by the last section
};

// Stores keys [rows, n * R] and values [rows, G * D] of a layer and attends with queries
// [rows, H * W]: out [rows, H * D].
using AttentionFunction = std::function<void(
    const AttentionStep& step, ConstMatrixF q, ConstMatrixF k, ConstMatrixF v, MatrixF out)>;

class Executor {
 public:
  // Both must outlive the executor.
  Executor(const CpuModel& model, ThreadPool& pool);

  void RunSection(int64_t section, const RowBatch& batch, const AttentionFunction& attention);

 private:
  void RunStep(const Step& step,
               const StepData& data,
               const RowBatch& batch,
               const AttentionFunction& attention);
  void RunNorm(const Step& step, const StepData& data, ConstMatrixF x, MatrixF y);
  [[nodiscard]] MatrixF View(const Operand& operand, const RowBatch& batch);
  void Reserve(int64_t rows);

  const CpuModel& model_;
  const Plan& plan_;
  ThreadPool& pool_;
  int64_t reserved_rows_ = 0;
  std::vector<std::vector<float>> slots_;  // [slot][rows, slot width]
};

}  // namespace kvc::runtime
