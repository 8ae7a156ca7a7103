#pragma once
// Continuations that the model itself would write, sampled with full attention.

#include <cstdint>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"

namespace kvc::model {

struct ContinuationOptions {
  int64_t tokens = 64;       // of each continuation
  double temperature = 0.7;  // of the softmax over the vocabulary; 0: the most probable token
  uint64_t seed = 42;
};

// Returns the `tokens` that follow each of `contexts`, which all have the same length. `forced` is
// what a continuation begins with (a question), at most `tokens` long; it is empty or has one entry
// per context. Sequence i draws from its own generator, so it does not depend on the others; an
// end-of-text token is treated like any other. The prompts stream layer by layer; then all
// sequences step together, with as many layers in memory as fit into 1 GiB and the others loaded
// again in every step. Keys and values of all sequences are in memory. The number of threads does
// not change the result. Throws kBadShape for contexts of different lengths, kUsage for a
// temperature below 0, kNumeric when a logit is not finite.
[[nodiscard]] std::vector<std::vector<int32_t>> SampleContinuations(
    const Checkpoint& checkpoint,
    const std::vector<std::vector<int32_t>>& contexts,
    const std::vector<std::vector<int32_t>>& forced,
    const ContinuationOptions& options,
    Progress& progress);

}  // namespace kvc::model
