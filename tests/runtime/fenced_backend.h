#pragma once
// A backend whose memory the host cannot touch: its buffers lie in pages that are protected except
// while one of its own calls runs. Under it the session's tests prove, without any accelerator,
// that host logic reads and writes no device memory. Scores and coordinates go through the host's
// copies (runtime/cpu/host_fallback.h), as a new backend's do.

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/thread_pool.h"
#include "runtime/backend.h"
#include "runtime/cpu/cpu_backend.h"

namespace kvc::runtime {

// Whole pages, closed unless an Opening lives.
class FencedDevice : public Device {
 public:
  // Opens the pages of a device as long as it lives. May be nested.
  class Opening {
   public:
    explicit Opening(FencedDevice& device) : device_(device) { device.Open(); }
    ~Opening() { device_.Close(); }
    Opening(const Opening&) = delete;
    Opening& operator=(const Opening&) = delete;

   private:
    FencedDevice& device_;
  };

  FencedDevice() = default;
  ~FencedDevice() override;
  [[nodiscard]] std::string_view name() const override { return "fenced"; }
  void ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) override;
  void ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) override;
  void Copy(const Buffer& from,
            int64_t from_offset,
            const Buffer& to,
            int64_t to_offset,
            int64_t bytes) override;
  void Synchronize() override {}
  // Times that the pages were opened.
  [[nodiscard]] int64_t openings() const { return openings_; }

 private:
  void* Allocate(int64_t bytes) override;
  void Free(void* memory, int64_t bytes) noexcept override;
  void Open();
  void Close();

  std::mutex mutex_;
  std::map<void*, size_t> pages_;  // of each buffer, with their bytes
  int64_t depth_ = 0;              // of Openings that live
  int64_t openings_ = 0;
};

class FencedBackend : public Backend {
 public:
  explicit FencedBackend(ThreadPool& pool) : pool_(pool), inner_(pool, device_) {}

  [[nodiscard]] std::string_view name() const override { return "fenced"; }
  [[nodiscard]] FencedDevice& device() override { return device_; }
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
  using Opening = FencedDevice::Opening;

  ThreadPool& pool_;
  FencedDevice device_;
  CpuBackend inner_;
};

}  // namespace kvc::runtime
