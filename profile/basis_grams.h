#pragma once
// Collects the second moments of profile/layer_grams.h in the pass that collects the curves.

#include <cstdint>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/layer_grams.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// Adds to sums that the caller owns, names them "gram.LAYER.WHAT". `config` and `sums` must outlive
// it.
class GramCollector {
 public:
  // Tokens before `sinks` do not count.
  GramCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums);

  // One window at one layer: `taps` [1, ...] with projections, `output_grams` [H, D_v, D_v]
  // (OutputProjectionGrams). Throws kNumeric when a moment is not finite.
  void Visit(int64_t layer, const model::LayerTaps& taps, const torch::Tensor& output_grams);

  // Moments of the layer after `tokens` tokens went into them, sinks not counted.
  [[nodiscard]] LayerGrams Finish(int64_t layer, int64_t tokens) const;

 private:
  void Add(int64_t layer, const char* what, const torch::Tensor& sum);

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  ProfileSums& sums_;
};

}  // namespace kvc::profile
