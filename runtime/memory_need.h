#pragma once
// The device memory that a pass through a model takes, said before anything of it is allocated.

#include <cstdint>
#include <span>

#include "core/cache/cache_spec.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// A cache that a prompt will fill.
struct PromptCache {
  const CacheSpec* spec = nullptr;
  int64_t reserve = 0;          // rows that a kFull block is allocated with at least
  int64_t least_queries = 0;    // rows that a layer's ring has until the layer is compressed
  bool prompt_queries = false;  // its scorer asks for all queries of a layer
};

// The most bytes that a cache holds while a prompt of `length` tokens goes through the model layer
// by layer: what the layers in front have kept, and of the layer at hand the working blocks of all
// its groups, its ring, and what they become, which is made while they are still there. A device's
// allocations reach it exactly (CacheMeter::peak_bytes), where no tiers are narrow, no window lets
// rows go and no scores spread rows over groups; otherwise it is a bound. A processor goes group by
// group and stays below it.
[[nodiscard]] int64_t PeakCacheBytes(const PromptCache& cache, int64_t length);

// Bytes of a prompt of `length` tokens that goes through the model in chunks: the workspace, all
// queries of a layer where a scorer asks for them, and PeakCacheBytes of all caches together.
// `logits`: rows that are read at once. Sums over tokens and tables of launches, a few floats a
// token and head of one layer, are not counted.
[[nodiscard]] int64_t PromptBytes(const Plan& plan,
                                  std::span<const PromptCache> caches,
                                  int64_t length,
                                  int64_t chunk,
                                  int64_t logits);

}  // namespace kvc::runtime
