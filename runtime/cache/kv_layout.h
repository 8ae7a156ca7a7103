#pragma once
// Index arithmetic of the cache beyond core/cache/cache_spec.h: pure functions, no allocation.

#include <algorithm>
#include <cstdint>

#include "core/cache/cache_spec.h"

namespace kvc::runtime {

// Tokens of a prompt of `length` that the recent block starts with; the older ones are candidates
// for the tiers.
[[nodiscard]] inline int64_t RecentAfterPrompt(const CacheSpec& spec, int64_t length) {
  return std::min(length, spec.window);
}

// Oldest rows that leave a full recent block: the margin, or one when there is no margin.
[[nodiscard]] inline int64_t RowsToReallocate(const CacheSpec& spec) {
  return std::max<int64_t>(spec.margin, 1);
}

// Width of the queries of a group in the dot product: D when keys are rebuilt from a latent.
[[nodiscard]] inline int64_t QueryWidth(const CacheSpec& spec, const CacheGroup& group) {
  return group.keeps_positions ? spec.head_width : group.key_width;
}

}  // namespace kvc::runtime
