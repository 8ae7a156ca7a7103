#pragma once
// The closed forms of every layer: one streamed pass collects statistics, and each layer's factors
// follow from its own.
//
// Each rank streams its share of the windows (factorize/window_share.h); the sums of all parts are
// taken in their order. Layer l is factored by rank l mod size, as soon as every rank has one to
// factor: a rank holds the statistics of one layer. Then all ranks get all factors.

#include <span>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Returns the description of keys with these factors for config.json.
[[nodiscard]] KeyFactors MakeKeys(const FactorRequest& request,
                                  const std::vector<LayerFactors>& factors);

// Computes every layer's factors: from the weights alone if there are no windows, otherwise from
// the statistics of one pass over them.
[[nodiscard]] std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                                     const FactorRequest& request,
                                                     const Windows& windows,
                                                     const linalg::Svd& svd,
                                                     Progress& progress,
                                                     Ranks& ranks = OneRank());

// Does the same for several requests in one pass.
[[nodiscard]] std::vector<std::vector<LayerFactors>> FactorEach(
    const Checkpoint& checkpoint,
    std::span<const FactorRequest> requests,
    const Windows& windows,
    const linalg::Svd& svd,
    Progress& progress,
    Ranks& ranks = OneRank());

// Spreads the ranks over layers and groups (factorize/rank_spread.h), in a second pass. `factors`
// are the uniform ones and are replaced by the spread ones. Returns the layers' measured
// sensitivity.
std::vector<double> SpreadFactors(const Checkpoint& source,
                                  const FactorRequest& uniform,
                                  const Windows& calibration,
                                  const linalg::Svd& svd,
                                  Progress& progress,
                                  std::vector<LayerFactors>& factors,
                                  Ranks& ranks = OneRank());

}  // namespace kvc::factorize
