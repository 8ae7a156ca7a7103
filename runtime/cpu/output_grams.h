#pragma once
// What a layer's output projection does to the norms of its heads' outputs, for scorers that ask.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// M_h = W_O^hT W_O^h [D, D] for each query head, W_O^h [E, D] being the head's columns of the
// projection behind the attention: |x W_O^hT|^2 = x M_h x^T. A layer's matrices are computed when
// they are first asked for and kept, H D^2 floats.
class OutputGrams {
 public:
  // Both must outlive it.
  OutputGrams(const Plan& plan, ThreadPool& pool) : plan_(plan), pool_(pool) {}
  // [H] of a layer. Throws kUnsupported naming the attention node when no product with a weight
  // follows it.
  [[nodiscard]] std::span<const ConstMatrixF> Of(int64_t layer);

 private:
  struct Layer {
    std::vector<float> storage;          // [H, D, D]
    std::vector<ConstMatrixF> matrices;  // [H]; empty before the first use
  };

  const Plan& plan_;
  ThreadPool& pool_;
  std::vector<Layer> layers_;
};

}  // namespace kvc::runtime
