#pragma once
// Prefill attention in bf16: both products of a tile of keys by oneDNN, queries and probabilities
// rounded to bf16, maxima, sums and outputs in floats. Internal to kernels/cpu.

#include <cstdint>
#include <span>

#include "core/base/thread_pool.h"
#include "kernels/attention.h"

namespace kvc::kernels {

// PrefillAttention (kernels/attention.h) for heads that it has checked. Returns false, with the
// outputs untouched, unless values are bf16, keys bf16 or rebuilt from bf16 latents, and oneDNN has
// the products.
bool RoundedPrefillAttention(std::span<const PrefillHead> heads,
                             int64_t first,
                             float scale,
                             ThreadPool& pool,
                             int64_t window);

}  // namespace kvc::kernels
