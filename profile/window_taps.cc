#include "profile/window_taps.h"

#include <algorithm>

#include <torch/types.h>

#include "model/projections.h"

namespace kvc::profile {

int64_t SeenContext(const ModelConfig& config, const ProfileOptions& options, int64_t layer) {
  const int64_t window = config.window(layer).value_or(options.context);
  return std::clamp(window, options.sinks + options.window + 1, options.context);
}

model::LayerTaps MovedTaps(const ModelConfig& config,
                           const model::LayerWeights& weights,
                           int64_t layer,
                           const model::LayerTaps& taps,
                           int64_t first) {
  if (first == 0 || !config.rotated(layer)) return taps;
  model::LayerWeights no_values = weights;
  no_values.v = torch::Tensor();
  const model::Projections at = model::Project(config, no_values, layer, taps.input, first);
  model::LayerTaps moved = taps;
  moved.q = at.q;
  moved.k = at.k;
  return moved;
}

model::LayerTaps SeenTaps(const model::LayerTaps& taps, int64_t tokens) {
  model::LayerTaps seen = taps;
  const int64_t first = taps.k.size(2) - tokens;
  if (first == 0) return seen;
  for (torch::Tensor* x : {&seen.q_pre_rope, &seen.q, &seen.k, &seen.v}) {
    *x = x->narrow(2, first, tokens);
  }
  return seen;
}

}  // namespace kvc::profile
