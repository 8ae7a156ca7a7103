#pragma once
// Fits the steps of a layer's rows in few bits (profile/code_steps.h) to the keys and values of all
// windows, with the errors that they leave, in the pass that collects the curves.

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "core/base/ranks.h"
#include "core/cache/cache_bases.h"
#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/code_steps.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// Keeps a layer's rows until its bases are known. The steps are kept in sums that the caller owns,
// under the names "steps.LAYER.WHAT" and "errors.LAYER.WHAT", so that a run that goes on has those
// of finished layers. `config`, `sums` and `ranks` must outlive the collector. The rows stay with
// the rank that visited their window; those that steps are fitted to go to all, and each fits some
// heads.
class StepCollector {
 public:
  // Tokens before `sinks` do not count: the cache keeps them whole. With `latents_in_bits`
  // (LatentsInBits) latents have steps too.
  StepCollector(const ModelConfig& config,
                int64_t sinks,
                ProfileSums& sums,
                Ranks& ranks = OneRank(),
                bool latents_in_bits = false);

  // Keeps the rows of one window at one layer: `taps` [1, ...] with projections, `weights` those of
  // the layer.
  void Visit(int64_t layer, const model::LayerTaps& taps, const model::LayerWeights& weights);

  // Collective: fits the steps of the layer's rows to `bases`, or takes those of a finished layer
  // when no rank has visited a window, and sets them, their errors and the runs of mixtures; where
  // there are no bases there are no steps. Throws kNumeric when a row is not finite.
  void Finish(int64_t layer, LayerBases& bases);

 private:
  // Fits every head's rows (of `heads`) in the first columns of the basis: [heads].
  [[nodiscard]] std::vector<StepFit> FitHeads(const std::vector<torch::Tensor>& windows,
                                              int64_t num_windows,
                                              int64_t heads,
                                              const std::vector<float>& forward,
                                              const std::vector<float>& back,
                                              const std::vector<float>& mean,
                                              int64_t width) const;

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  ProfileSums& sums_;
  Ranks& ranks_;
  bool latents_in_bits_ = false;
  std::vector<torch::Tensor> keys_;    // of each window [K, T - sinks, D_k]; none without a basis
  std::vector<torch::Tensor> values_;  // [G, T - sinks, D_v]
};

}  // namespace kvc::profile
