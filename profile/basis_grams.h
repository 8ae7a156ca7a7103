#pragma once
// Collects the second moments of profile/layer_grams.h in the pass that collects the curves.

#include <cstdint>
#include <string>
#include <vector>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/layer_grams.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// The width of a layer's widest cached key; 0 where keys are latents that need no basis.
[[nodiscard]] int64_t WidestKey(const ModelConfig& config, int64_t layer, bool latents_in_bits);

// Collects moments into sums that the caller owns, under the names "gram.LAYER.WHAT". `config` and
// `sums` must outlive the collector.
class GramCollector {
 public:
  // Tokens before `sinks` do not count; the last `horizon` tokens' queries measure. With
  // `latents_in_bits` (LatentsInBits) latents have moments too.
  GramCollector(const ModelConfig& config,
                int64_t sinks,
                int64_t horizon,
                ProfileSums& sums,
                bool latents_in_bits = false);

  // Adds one window at one layer: `taps` [1, ...] with projections, `weights` those of the layer,
  // `energy` [T] the squared norms of what it reads, `output_grams` [H, D_v, D_v]
  // (OutputProjectionGrams). Throws kNumeric when a moment is not finite.
  void Visit(int64_t layer,
             const model::LayerTaps& taps,
             const model::LayerWeights& weights,
             const torch::Tensor& energy,
             const torch::Tensor& output_grams);

  // Returns the names of the sums that visits of a layer add to.
  [[nodiscard]] std::vector<std::string> SumNames(int64_t layer) const;

  // Returns the moments of the layer after `windows` windows with `tokens` tokens together were
  // added, not counting sinks.
  [[nodiscard]] LayerGrams Finish(int64_t layer, int64_t windows, int64_t tokens) const;

 private:
  // Adds to the layer's metrics.
  void AddMetrics(int64_t layer,
                  const model::LayerTaps& taps,
                  const model::LayerWeights& weights,
                  const torch::Tensor& energy,
                  const torch::Tensor& output_grams);
  void Add(int64_t layer, const char* what, const torch::Tensor& sum);

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  int64_t horizon_ = 0;
  ProfileSums& sums_;
  bool latents_in_bits_ = false;
};

}  // namespace kvc::profile
