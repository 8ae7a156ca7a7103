#pragma once
// Attention of one new token of each of several sequences over their caches of a layer. Where a
// cache lies in coordinates (runtime/cache/coordinates.h), queries are brought into them, and
// outputs back.

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/attention.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/cpu/head_basis.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// What attention reads of a layer: for each kv head its tiers that hold rows, then the recent
// block. Addresses and rows of tiers change only when rows move; the recent block's rows grow.
class SegmentTables : public LayerTables {
 public:
  explicit SegmentTables(const LayerCache& layer);
  // Takes in the rows that were appended to the recent blocks [n]; returns the segments of a head.
  [[nodiscard]] std::span<const kernels::Segment> Of(int64_t head, const LayerCache& layer);

 private:
  int64_t planes_ = 1;                                // kv heads of a group
  std::vector<std::vector<kernels::Segment>> heads_;  // [G]
};

// Keeps what it allocates, so that a step like the one before allocates nothing.
class DecodeBatch {
 public:
  // Begins a layer, which must outlive the batch's use of it.
  void Start(const AttentionStep& step);
  // Adds the heads of a sequence: q [1, H * W], out [1, H * D], and the rebuilds [G] of its latents
  // (CpuModel::rebuild), which must live until Attend. Makes the layer's tables if there are none.
  void Add(SequenceCache& cache,
           std::span<const kernels::KeyRebuild> rebuild,
           ConstMatrixF q,
           MatrixF out);
  // Writes every `out`.
  void Attend(ThreadPool& pool);

 private:
  // Outputs in coordinates and where they belong.
  struct Restored {
    HeadBasis basis;
    ConstMatrixF coordinates;  // [H/G, D]
    MatrixF outputs;           // [H/G, D]
  };

  // Room until the next Start; what it holds is not set.
  MatrixF Take(int64_t rows, int64_t cols);
  kernels::DecodeHead& NextHead();

  const AttentionStep* step_ = nullptr;
  std::vector<kernels::DecodeHead> heads_;  // the first num_heads_ are in use
  size_t num_heads_ = 0;
  std::vector<Restored> restored_;
  // What views point into: elements stay where they are, and serve layer after layer.
  std::deque<std::vector<float>> buffers_;
  size_t taken_ = 0;  // of buffers_, since Start
};

}  // namespace kvc::runtime
