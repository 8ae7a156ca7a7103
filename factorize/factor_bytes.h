#pragma once
// A layer's factors as bytes, by which ranks hand them on (core/base/ranks.h).

#include <string>
#include <vector>

#include "core/base/ranks.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Convert exactly in both directions, on machines of one kind. Throws kInternal for bytes of
// another length.
[[nodiscard]] std::string PackFactors(const LayerFactors& factors);
[[nodiscard]] LayerFactors UnpackFactors(const std::string& bytes);

// Collective: gives all ranks every layer's factors; layer l is known to rank l mod size.
void ShareFactors(Ranks& ranks, std::vector<LayerFactors>& factors);

}  // namespace kvc::factorize
