#pragma once
// Collects the second moments of profile/layer_grams.h in the pass that collects the curves.

#include <cstdint>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/layer_grams.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// The width of a layer's widest cached key; 0 where keys are latents.
[[nodiscard]] int64_t WidestKey(const ModelConfig& config, int64_t layer);

// Collects moments into sums that the caller owns, under the names "gram.LAYER.WHAT". `config` and
// `sums` must outlive the collector.
class GramCollector {
 public:
  // Tokens before `sinks` do not count.
  GramCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums);

  // Adds one window at one layer: `taps` [1, ...] with projections, `output_grams` [H, D_v, D_v]
  // (OutputProjectionGrams). Throws kNumeric when a moment is not finite.
  void Visit(int64_t layer, const model::LayerTaps& taps, const torch::Tensor& output_grams);

  // Returns the moments of the layer after `tokens` tokens were added, not counting sinks.
  [[nodiscard]] LayerGrams Finish(int64_t layer, int64_t tokens) const;

 private:
  void Add(int64_t layer, const char* what, const torch::Tensor& sum);

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  ProfileSums& sums_;
};

}  // namespace kvc::profile
