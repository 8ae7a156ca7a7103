#pragma once
// The closed forms of every layer: one streamed pass collects statistics, each layer's factors
// follow from its own.

#include <span>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// What config.json says of keys with these factors.
[[nodiscard]] KeyFactors MakeKeys(const FactorRequest& request,
                                  const std::vector<LayerFactors>& factors);

// From the weights alone without windows, else from the statistics of one pass over them, of which
// one layer's are held at a time.
[[nodiscard]] std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                                     const FactorRequest& request,
                                                     const Windows& windows,
                                                     const linalg::Svd& svd,
                                                     Progress& progress);

// The same for several requests on one pass.
[[nodiscard]] std::vector<std::vector<LayerFactors>> FactorEach(
    const Checkpoint& checkpoint,
    std::span<const FactorRequest> requests,
    const Windows& windows,
    const linalg::Svd& svd,
    Progress& progress);

// The same again with ranks spread over layers and groups (factorize/rank_spread.h), on a second
// pass. `factors` are the uniform ones and become the spread ones. Returns the layers' measured
// sensitivity.
std::vector<double> SpreadFactors(const Checkpoint& source,
                                  const FactorRequest& uniform,
                                  const Windows& calibration,
                                  const linalg::Svd& svd,
                                  Progress& progress,
                                  std::vector<LayerFactors>& factors);

}  // namespace kvc::factorize
