#pragma once
// A model prepared for a CUDA device: what the steps of its plan name, in the device's memory.

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "core/base/thread_pool.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/latent_keys.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "runtime/backend.h"
#include "runtime/cpu/cpu_model.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/load/graph.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// What one step reads; what its kind does not need is null.
struct DeviceStepData {
  cuda::ConstRows table;
  const float* weight = nullptr;
  const float* bias = nullptr;
  cuda::RotationTable rotation;
  const int32_t* pairs = nullptr;  // [width / 2]
  const float* columns = nullptr;  // [groups * D, R]
};

// Immutable but for Gram matrices and the processor's model, which are made when they are first
// asked for.
class CudaModel : public PreparedModel {
 public:
  // Graph and plan must outlive it. Throws kDevice, need and have named, before anything is
  // uploaded to a device that has no room.
  CudaModel(const Graph& graph, const Plan& plan, CudaDevice& device);
  ~CudaModel() override { device_.Drain(); }
  CudaModel(CudaModel&&) = delete;

  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] std::span<const DeviceStepData> section(int64_t s) const { return sections_[s]; }
  [[nodiscard]] const cuda::ConstRows& linear(int64_t i) const { return linears_[i]; }
  // [G] of a layer; empty where keys are stored as they are.
  [[nodiscard]] std::span<const cuda::LatentKeys> latents(int64_t layer) const {
    return latents_[layer];
  }
  // The rotation of a layer's queries; none where there is none, or keys are rotated otherwise.
  [[nodiscard]] cuda::RotationTable query_rotation(int64_t layer) const;
  // M_h of a layer's query heads (runtime/cpu/output_grams.h), on the device [H, D, D]. They are
  // made when they are first asked for, and kept; counted in no budget, like weights. Throws
  // kUnsupported where the plan has no output projection.
  [[nodiscard]] const float* output_grams(int64_t layer, ThreadPool& pool) const;
  // The same plan prepared for the processor, for what runs there (runtime/cpu/host_fallback.h).
  [[nodiscard]] const CpuModel& on_host(ThreadPool& pool) const;

 private:
  // A range of the host's memory that steps read.
  using Source = std::pair<const void*, int64_t>;

  [[nodiscard]] Source SourceOf(DataId id) const;
  [[nodiscard]] Source SourceOf(const LinearWeight& weight) const;
  void CheckRoom() const;
  const void* OnDevice(Source source);
  template <class T>
  const T* OnDevice(DataId id);
  [[nodiscard]] DeviceStepData Resolve(const Step& step);
  [[nodiscard]] cuda::RotationTable RotationOf(DataId cos, DataId sin);
  [[nodiscard]] std::vector<cuda::LatentKeys> LatentsOf(const AttentionStep& step);

  const Graph& graph_;
  const Plan& plan_;
  CudaDevice& device_;
  std::map<Source, cuda::DeviceBuffer> uploaded_;
  std::vector<cuda::DeviceBuffer> pairs_;
  std::vector<std::vector<DeviceStepData>> sections_;   // [1 + L + 1]
  std::vector<cuda::ConstRows> linears_;                // [plan's]
  std::vector<std::vector<cuda::LatentKeys>> latents_;  // [L]
  std::vector<cuda::DeviceBuffer> packed_;              // of latents_
  mutable std::vector<cuda::DeviceBuffer> grams_;       // [L], empty before they are asked for
  mutable std::mutex host_mutex_;
  mutable std::unique_ptr<CpuModel> host_;
};

}  // namespace kvc::runtime
