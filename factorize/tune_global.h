#pragma once
// --tune global: trains the query and key side of all layers together, in factored form, against
// the model's output. The result has the layers' ranks by construction; everything else stays as it
// is.
//
// AdamW (model/adamw.h: warm-up, cosine to a tenth, decay 0.01, clipped at 1) works on the matrices
// divided by their step sizes (factorize/tune_steps.h), so a rate means the same for A, B and W_Q
// and however the factors are scaled. The rate is --lr * GlobalRateShare. A step adds up the
// gradients of step_tokens' windows in order, each computed on one thread, so results do not depend
// on the number of threads. On a CUDA device windows go through the model in batches of up to 8,192
// tokens, at least two per step, with products in options.compute's precision; checks are float32.
// One window in kCheckEvery is not trained on. The loss on these is measured pass_checks times in
// each pass, the best weights are kept, and training ends when kPatience checks have brought
// nothing better. When a check is more than a tenth above the best one, training returns to the
// best weights at a third of the rate.
//
// Memory: the model in float32, four copies of what is trained, a gradient for each thread, two
// hidden states of every window, and one layer's activations for each thread.

#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/factorization.h"
#include "factorize/layer_factors.h"
#include "factorize/tune_options.h"
#include "model/compare.h"

namespace kvc::factorize {

inline constexpr int64_t kPatience = 4;

// Returns the factor of the rate. With kKl it is sqrt(loss_before, at most 1) * 128 / E * min(1, 4
// / L): what is nearly right needs small steps, and the steps of a row's E weights and of L layers
// add up. With kCe the root is replaced by a fifth: the cross entropy does not tell how far the
// model is off.
[[nodiscard]] double GlobalRateShare(OutputLoss loss,
                                     double loss_before,
                                     const ModelConfig& config);

// Tunes `factors` (one per layer) in place. `state` is a file from which a run that was
// interrupted, or that met a NaN, resumes; it is written at every check and left there. Throws
// kNumeric when a loss or a gradient is not finite (the state of the last check stays),
// kInterrupted from `progress` after writing the state, kBadInput for a broken state. Collective:
// every rank holds the model, computes its share of a step's windows, and takes the step; rank 0
// writes the state.
[[nodiscard]] GlobalTuning TuneGlobally(const Checkpoint& source,
                                        const KeyFactors& keys,
                                        const Windows& windows,
                                        const GlobalTuneOptions& options,
                                        const std::filesystem::path& state,
                                        Progress& progress,
                                        std::vector<LayerFactors>& factors,
                                        Ranks& ranks = OneRank());

// Runs the control: the full model's own W_Q and W_K get the same training and are measured on
// `held_back`. With kKl the loss and its gradient are zero from the start, so the source is the
// control and nothing is run. Collective over the ranks of `held_back`.
[[nodiscard]] ControlResult TuneControl(const Checkpoint& source,
                                        const model::ReferenceRun& held_back,
                                        const Windows& windows,
                                        const GlobalTuneOptions& options,
                                        const std::filesystem::path& state,
                                        Progress& progress);

}  // namespace kvc::factorize
