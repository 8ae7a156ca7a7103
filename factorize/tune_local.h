#pragma once
// --tune local: trains every layer alone, in order, against the full model
// (factorize/layer_tuner.h). The thin layer sees the output of the thin layers before it, and the
// target is the full model's attention in the same layer, so it learns with the errors that it will
// meet. Memory is one layer, its optimizer, and the hidden states of the tuning windows, twice.
//
// A layer learns from the tuned layers before it, so that ranks do not tune layers side by side but
// the windows of one: each runs its windows through the full and the thin layer, and all of them
// get the tuner's inputs and targets; the windows of a step are divided (factorize/layer_tuner.h).

#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"
#include "factorize/tune_options.h"
#include "factorize/tune_state.h"
#include "factorize/tuning_result.h"

namespace kvc::factorize {

// Tunes `factors` (one per layer) in place. Layers that `state` holds are taken from it, every
// further one is saved there. Returns one result per layer. Throws kUnsupported for layouts that
// cannot be tuned, kNumeric like TuneLayer.
[[nodiscard]] std::vector<LayerTuning> TuneLocally(const Checkpoint& source,
                                                   const KeyFactors& keys,
                                                   const Windows& windows,
                                                   const TuneOptions& options,
                                                   const TuneState& state,
                                                   Progress& progress,
                                                   std::vector<LayerFactors>& factors,
                                                   Ranks& ranks = OneRank());

}  // namespace kvc::factorize
