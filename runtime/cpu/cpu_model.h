#pragma once
// A model prepared for the processor: what the steps of its plan name, as pointers, packed weights
// and the rebuilds of latents with their unit rows.

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "core/cache/cache_bases.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "runtime/backend.h"
#include "runtime/cpu/latent_coordinates.h"
#include "runtime/cpu/output_grams.h"
#include "runtime/cpu/weight_memory.h"
#include "runtime/load/graph.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// What one step reads; what its kind does not need is null or has no rows.
struct StepData {
  const Tensor* table = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  ConstMatrixF cos, sin;  // [positions, r/2]
  ConstMatrixF columns;   // [groups*D, R]
};

// Immutable but for the Gram matrices of output projections and the rebuilds from coordinates,
// which are made when they are first asked for, behind a lock: sessions on several threads share
// one.
class CpuModel : public PreparedModel {
 public:
  // Graph and plan must outlive it. `pack_weights`: kernels::PackedWeight's lossless bf16, and
  // weights of 16 bits are read into memory of their own (weight_memory.h). Throws
  // kInternal for a plan that the graph is not behind.
  CpuModel(const Graph& graph, const Plan& plan, bool pack_weights, ThreadPool& pool);

  [[nodiscard]] const Plan& plan() const { return plan_; }
  // Data of a section's steps, in their order.
  [[nodiscard]] std::span<const StepData> section(int64_t s) const { return sections_[s]; }
  [[nodiscard]] const kernels::PackedWeight& linear(int64_t i) const { return linears_[i]; }
  // [G] rebuilds of a layer's latents; empty where keys are stored as they are.
  [[nodiscard]] std::span<const kernels::KeyRebuild> rebuild(int64_t layer) const {
    return rebuilds_[layer];
  }
  // The same for latents in the coordinates of a cache's bases (core/cache/cache_bases.h); those
  // above where these have none for latents. Kept with the bases, good as long as the model. Throws
  // kUnsupported, naming the layer, where the bundle's latents are not the profiled checkpoint's.
  [[nodiscard]] std::span<const kernels::KeyRebuild> rebuild(
      int64_t layer, const std::shared_ptr<const std::vector<LayerBases>>& bases) const;
  // The rotation that a layer's queries get in the plan [positions, r/2]; no rows where there is
  // none.
  [[nodiscard]] ConstMatrixF cos(int64_t layer) const { return QueryRotation(layer).cos; }
  [[nodiscard]] ConstMatrixF sin(int64_t layer) const { return QueryRotation(layer).sin; }
  // M_h of each query head of a layer (output_grams.h) [H]. Throws kUnsupported naming the
  // attention node when no product with a weight follows it.
  [[nodiscard]] std::span<const ConstMatrixF> output_grams(int64_t layer, ThreadPool& pool) const;

 private:
  [[nodiscard]] ConstMatrixF TableOf(DataId id) const;
  [[nodiscard]] kernels::WeightView WeightOf(const LinearWeight& weight) const;
  [[nodiscard]] StepData Resolve(const Step& step) const;
  [[nodiscard]] StepData QueryRotation(int64_t layer) const;
  [[nodiscard]] std::vector<kernels::KeyRebuild> RebuildsOf(const AttentionStep& step) const;

  // The bytes that products' weights take in memory of their own; 0 where the machine has too
  // little.
  [[nodiscard]] int64_t OwnBytes() const;
  // Appends a product's weight, in memory of its own where there is room for it.
  void AddLinear(const LinearWeight& weight, bool pack_weights, ThreadPool& pool);

  const Graph& graph_;
  const Plan& plan_;
  std::vector<std::vector<StepData>> sections_;  // [1 + L + 1]
  WeightMemory memory_;
  std::vector<kernels::WeightView> views_;                  // [plan's], what linears_ are made of
  std::vector<kernels::PackedWeight> linears_;              // [plan's]
  std::vector<std::vector<kernels::KeyRebuild>> rebuilds_;  // [L]
  mutable std::mutex coordinates_mutex_;
  mutable std::vector<RebuildsOfBases> in_coordinates_;  // of every bases that were asked for
  mutable std::mutex grams_mutex_;
  mutable std::vector<OutputGrams> grams_;  // [L]; empty before they are asked for
};

}  // namespace kvc::runtime
