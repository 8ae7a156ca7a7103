#pragma once
// The backend of a CUDA device or, in programs that are linked with it, of the emulator.

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/backend.h"
#include "runtime/cuda/block_rows.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/decode_step.h"

namespace kvc::runtime {

// All work runs in one stream; a call returns when its work is in the stream, or noted for it
// (decode_step.h), but for those that bring something to the host: ReadLogits, DrawTokens, Score,
// Settle, FindCoordinates. Coordinates are still found on the host, from a copy of the layer. Calls
// of several threads take turns.
class CudaBackend : public Backend {
 public:
  // The pool serves what runs on the host, and says how many threads an emulator has. Throws
  // kDevice where there is no device.
  explicit CudaBackend(std::unique_ptr<ThreadPool> pool);
  // The pool must outlive the backend.
  explicit CudaBackend(ThreadPool& pool);
  ~CudaBackend() override { device_.Drain(); }
  CudaBackend(CudaBackend&&) = delete;

  [[nodiscard]] std::string_view name() const override { return device_.name(); }
  [[nodiscard]] Device& device() override { return device_; }
  void CheckFormats(const CacheSpec& spec) const override;
  [[nodiscard]] std::shared_ptr<const PreparedModel> Prepare(const Graph& graph,
                                                             const Plan& plan,
                                                             bool pack_weights) override;
  [[nodiscard]] std::unique_ptr<Activations> NewActivations(
      std::shared_ptr<const PreparedModel> model, const ActivationSize& size) override;
  void Run(int64_t section, SectionPart part, const RowBatch& batch, Activations& x) override;
  void ReadLogits(const RowBatch& batch, Activations& x, MatrixF logits) override;
  [[nodiscard]] bool DrawTokens(const RowBatch& batch,
                                Activations& x,
                                const kernels::SamplingOptions& options,
                                std::span<Rng* const> rngs,
                                std::span<int32_t> ids) override;
  void Store(int64_t layer,
             RowRange rows,
             int64_t first_position,
             const Activations& x,
             SequenceCache& cache) override;
  void AttendPrompt(int64_t layer, const SequenceCache& cache, Activations& x) override;
  void AttendTokens(int64_t layer, std::span<SequenceCache* const> caches, Activations& x) override;
  void Apply(const LayerMoves& moves, int64_t layer, SequenceCache& cache) override;
  void FindResidualEnergy(int64_t layer,
                          int64_t window,
                          const Activations& x,
                          SequenceCache& cache) override;
  [[nodiscard]] std::vector<GroupScores> Score(const ScoreRequest& request,
                                               const PreparedModel& model,
                                               SequenceCache& cache) override;
  void FindCoordinates(int64_t layer, SequenceCache& cache) override;
  [[nodiscard]] std::shared_ptr<const PlacedScores> ScoreInPlace(const ScoreRequest& request,
                                                                 const PreparedModel& model,
                                                                 SequenceCache& cache) override;
  void ApplyRule(const LayerRule& rule,
                 const PlacedScores& scores,
                 int64_t layer,
                 SequenceCache& cache) override;
  void Settle(SequenceCache& cache) override;

  // How the decode steps of all its sessions have been run.
  [[nodiscard]] const StepCounts& steps() const { return steps_; }

 private:
  std::unique_ptr<ThreadPool> own_pool_;
  ThreadPool& pool_;
  CudaDevice device_;
  DeviceBases bases_;  // of caches on the device
  StepCounts steps_;
};

}  // namespace kvc::runtime
