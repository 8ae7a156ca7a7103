#pragma once
// Fits the steps of a layer's rows in few bits (profile/code_steps.h) to the keys and values of all
// windows, with the errors that they leave, in the pass that collects the curves.

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/cache/cache_bases.h"
#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// Keeps a layer's rows until its bases are known. The steps are kept in sums that the caller owns,
// under the names "steps.LAYER.WHAT" and "errors.LAYER.WHAT", so that a run that goes on has those
// of finished layers. `config` and `sums` must outlive the collector.
class StepCollector {
 public:
  // Tokens before `sinks` do not count: the cache keeps them whole.
  StepCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums);

  // Keeps the rows of one window at one layer: `taps` [1, ...] with projections.
  void Visit(const model::LayerTaps& taps);

  // Fits the steps of the layer's rows to `bases`, or takes those of a finished layer when no
  // window was visited, and sets them, their errors and the runs of mixtures; where there are no
  // bases there are no steps. Throws kNumeric
  // when a row is not finite.
  void Finish(int64_t layer, LayerBases& bases);

 private:
  // Rows of one head, at most kStepRows of them: [n, D].
  [[nodiscard]] static torch::Tensor RowsOf(const std::vector<torch::Tensor>& windows,
                                            int64_t head);

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  ProfileSums& sums_;
  std::vector<torch::Tensor> keys_;    // of each window [G, T - sinks, D_k]; none for latents
  std::vector<torch::Tensor> values_;  // [G, T - sinks, D_v]
};

}  // namespace kvc::profile
