#pragma once
// Attention of one new token of each of several sequences over their caches of a layer. Where a
// cache lies in coordinates (runtime/cache/coordinates.h), keys, queries and values are brought
// into them, and outputs back.

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

// Columns of one query head in q [T, H * W].
[[nodiscard]] int64_t QueryStride(const AttentionStep& step, ConstMatrixF q);

// Appends rows of all groups to their recent blocks as they are: k [T, n * R], v [T, G * D]; the
// first has position `first`.
void StoreRows(
    LayerCache& cache, const AttentionStep& step, ConstMatrixF k, ConstMatrixF v, int64_t first);

class DecodeBatch {
 public:
  // Begins a layer, with the rebuilds [G] of its latents. Both must outlive the batch's use of
  // them.
  void Start(const AttentionStep& step, std::span<const kernels::KeyRebuild> rebuild);
  // Appends a token: k [1, n * R], v [1, G * D]. There must be room.
  void Store(SequenceCache& cache, ConstMatrixF k, ConstMatrixF v, int64_t position);
  // Adds the heads of a sequence: q [1, H * W], out [1, H * D], which must live until Attend.
  void Add(const SequenceCache& cache, ConstMatrixF q, MatrixF out);
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

  const AttentionStep* step_ = nullptr;
  std::span<const kernels::KeyRebuild> rebuild_;
  std::vector<kernels::DecodeHead> heads_;
  std::vector<Restored> restored_;
  // What views point into: elements stay where they are, and serve layer after layer.
  std::deque<std::vector<float>> buffers_;
  size_t taken_ = 0;  // of buffers_, since Start
};

}  // namespace kvc::runtime
