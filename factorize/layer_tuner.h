#pragma once
// Trains the query and key side of one layer, in factored form, so that its attention adds to the
// residual stream what the full model's does. The result has the layer's ranks by construction.
//
// Every matrix of the query and key side (factorize/tuned_weights.h) is trained with Adam ([AdamW]
// without decay). The step of a weight is the rate times its step size (factorize/tune_steps.h).
// The rate is --lr * |y' - y| / |y|, the relative error of the attention's output before tuning:
// what is nearly right needs small steps. After a linear warm-up it falls along a cosine to 0.
//
// One window in kCheckEvery (factorize/tune_steps.h) is not trained on. After every pass the error
// on these windows decides whether the pass is kept; a pass that made things worse is undone, and
// the rate is cut to a third. Gradients of a step's windows are added in order, each computed on
// one thread, so results do not depend on the number of threads. Of several ranks each computes
// window i of a step, or of a check, with i mod size = its rank, and all of them take the same
// step.

#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/ranks.h"
#include "core/base/thread_pool.h"
#include "factorize/attention_loss.h"
#include "factorize/tune_options.h"
#include "model/decoder.h"

namespace kvc::factorize {

struct TuneWindow {
  torch::Tensor hidden;  // [T, E] what enters the thin model's layer
  AttentionTarget target;
};

// Errors before and after tuning, as means over windows of the relative error of the attention
// (AttentionError::error).
struct LayerTuneReport {
  double error_before = 0.0;  // on the windows that are not trained on
  double error_after = 0.0;   // on the same, of the weights that are kept
  int64_t kept_pass = 0;      // 0: no pass was better than the closed form
};

// Tunes `weights`, a layer of the thin model, in place. Needs at least two windows. Calls
// `report(done, total)` after every step. Collective; `windows` and `weights` are those of all
// ranks. Throws kNumeric, naming the layer, when an error or a gradient is not finite; `weights`
// then stays as it was.
LayerTuneReport TuneLayer(const ModelConfig& thin,
                          int64_t layer,
                          const std::vector<TuneWindow>& windows,
                          const TuneOptions& options,
                          ThreadPool& pool,
                          const std::function<void(int64_t done, int64_t total)>& report,
                          model::LayerWeights& weights,
                          Ranks& ranks = OneRank());

}  // namespace kvc::factorize
