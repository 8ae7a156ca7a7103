#pragma once
// --spread: divides the key dimensions among layers and groups, at the same mean rank.
//
// The loss of a group at rank r is modelled as
//   loss(r) = kld_l * tail(r) / sum over the layer's groups of tail(r_0),  tail(r) = sum_{i>=r}
//   s_i,
// where s is the energy of the group's coordinates under the objective and kld_l the loss of the
// model's output when layer l alone has uniform keys of rank r_0. kld_l is measured, because a
// layer's own error does not tell how it affects the output. The hull-and-greedy solver minimises
// the sum of the losses.

#include <cstdint>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {

// Returns the mean KL divergence of the model's output, in nats, when layer l alone is thin: [L].
// `factors` are those of uniform ranks `keys`. Every layer's variant goes through the rest of the
// full model, all variants side by side: half a pass over the model for each layer, on these few
// windows. Layer l's variant is run by rank l mod size.
[[nodiscard]] std::vector<double> MeasureSensitivity(const Checkpoint& source,
                                                     const KeyFactors& keys,
                                                     const std::vector<LayerFactors>& factors,
                                                     const Windows& windows,
                                                     Progress& progress,
                                                     Ranks& ranks = OneRank());

// Returns ranks [L][n] whose sum is at most L n `uniform_rank`, as multiples of `step` (the full
// width in any case). `spectra` [L][n] of [m] are descending energies, `sensitivity` [L] is at the
// uniform rank. A layer that loses nothing there (no energy beyond that rank, or a sensitivity of
// 0) keeps it: nothing tells what it would lose at another rank.
[[nodiscard]] std::vector<std::vector<int64_t>> SpreadRanks(
    const std::vector<std::vector<std::vector<double>>>& spectra,
    const std::vector<double>& sensitivity,
    int64_t uniform_rank,
    int64_t step);

}  // namespace kvc::factorize
