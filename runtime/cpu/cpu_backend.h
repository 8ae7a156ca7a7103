#pragma once
// The backend of the processor: the reference for all others.

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/thread_pool.h"
#include "kernels/matmul.h"
#include "runtime/backend.h"
#include "runtime/cpu/host_device.h"

namespace kvc::runtime {

// Results do not depend on the number of threads. Several backends may share a pool.
class CpuBackend : public Backend {
 public:
  explicit CpuBackend(ThreadPool& pool) : CpuBackend(pool, SharedHostDevice()) {}
  explicit CpuBackend(std::unique_ptr<ThreadPool> pool)
      : own_pool_(std::move(pool)), pool_(*own_pool_), device_(SharedHostDevice()) {}
  // `device`: one whose memory the host can read while a call runs. Pool and device must outlive
  // the backend.
  CpuBackend(ThreadPool& pool, Device& device) : pool_(pool), device_(device) {}

  [[nodiscard]] std::string_view name() const override { return "cpu"; }
  [[nodiscard]] Device& device() override { return device_; }
  [[nodiscard]] ThreadPool& pool() { return pool_; }
  // What is made from now on never rounds activations (RuntimeOptions::exact).
  void KeepActivationsExact() { rounding_ = kernels::InputRounding::kNone; }
  [[nodiscard]] std::shared_ptr<const PreparedModel> Prepare(const Graph& graph,
                                                             const Plan& plan,
                                                             bool pack_weights) override;
  [[nodiscard]] std::unique_ptr<Activations> NewActivations(
      std::shared_ptr<const PreparedModel> model, const ActivationSize& size) override;
  void Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) override;
  void ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) override;
  void Store(int64_t layer,
             RowRange rows,
             int64_t first_position,
             const Activations& x,
             SequenceCache& cache) override;
  void AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) override;
  void AttendTokens(int64_t layer, std::span<SequenceCache* const> caches, Activations& x) override;
  [[nodiscard]] bool AttendsByRow() const override { return true; }
  void AttendRow(int64_t layer, int64_t row, SequenceCache& cache, Activations& x) override;
  void Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) override;
  void FindResidualEnergy(int64_t layer,
                          int64_t window,
                          const Activations& x,
                          SequenceCache& cache) override;
  [[nodiscard]] std::vector<GroupScores> Score(const ScoreRequest& request,
                                               const PreparedModel& model,
                                               SequenceCache& cache) override;
  void FindCoordinates(int64_t layer, SequenceCache& cache) override;

 private:
  std::unique_ptr<ThreadPool> own_pool_;
  ThreadPool& pool_;
  Device& device_;
  kernels::InputRounding rounding_ = kernels::InputRounding::kToBF16;
};

}  // namespace kvc::runtime
