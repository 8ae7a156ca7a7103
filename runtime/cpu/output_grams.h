#pragma once
// What a layer's output projection does to the norms of its heads' outputs, for scorers that ask.

#include <cstdint>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/matmul.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// M_h = W_O^hT W_O^h [D, D] for each query head, W_O^h [E, D] being the head's columns of the
// projection behind the attention: |x W_O^hT|^2 = x M_h x^T. H D^2 floats.
struct OutputGrams {
  std::vector<float> storage;          // [H, D, D]
  std::vector<ConstMatrixF> matrices;  // [H], views of it
};

// Index into Plan::linears of the product that reads a layer's attention. Throws kUnsupported
// naming the attention node when there is none.
[[nodiscard]] int64_t OutputProjection(const Plan& plan, int64_t layer);

// The Gram matrices of a projection [E, H * D].
[[nodiscard]] OutputGrams MakeOutputGrams(const kernels::WeightView& weight,
                                          int64_t num_heads,
                                          ThreadPool& pool);

}  // namespace kvc::runtime
