#pragma once
// Reads the factors of a thin checkpoint, so that tuning can continue from an earlier result.

#include <vector>

#include "core/checkpoint/checkpoint.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Returns one entry per layer, without what only the closed forms know (logit_errors, spectra).
[[nodiscard]] std::vector<LayerFactors> ReadFactors(const Checkpoint& thin);

// Throws kBadInput, naming the tensor, unless `thin` is `source` with another query and key side:
// the same sizes, and every other tensor with the same bytes.
void CheckSameModel(const Checkpoint& source, const Checkpoint& thin);

}  // namespace kvc::factorize
