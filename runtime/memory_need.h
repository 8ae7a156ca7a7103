#pragma once
// The device memory that a pass through a model takes, said before anything of it is allocated.

#include <cstdint>
#include <span>

#include "core/cache/cache_spec.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// Bytes of a prompt of `length` tokens that goes through the model in chunks, for sequences with
// caches of `specs`: the workspace, one layer's rows of the whole prompt, and what the caches keep
// (kvc::PredictBytes). `logits`: rows that are read at once.
[[nodiscard]] int64_t PromptBytes(const Plan& plan,
                                  std::span<const CacheSpec* const> specs,
                                  int64_t length,
                                  int64_t chunk,
                                  int64_t logits);

}  // namespace kvc::runtime
