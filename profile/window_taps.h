#pragma once
// Views of a layer's calibration window: the part that a layer with a window sees, and the same
// window at other positions.

#include <cstdint>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/profile_model.h"

namespace kvc::profile {

// Returns how many tokens of the context a layer with a window sees. Its curves are shares of these
// tokens, as its budgets are (RowsAt); at least one of them is neither sink nor in the runtime's
// window of newest tokens.
[[nodiscard]] int64_t SeenContext(const ModelConfig& config,
                                  const ProfileOptions& options,
                                  int64_t layer);

// Returns the window `first` positions later. Only queries and keys change.
[[nodiscard]] model::LayerTaps MovedTaps(const ModelConfig& config,
                                         const model::LayerWeights& weights,
                                         int64_t layer,
                                         const model::LayerTaps& taps,
                                         int64_t first);

// Returns the last `tokens` of all but `input`, from which keys are made at their positions.
[[nodiscard]] model::LayerTaps SeenTaps(const model::LayerTaps& taps, int64_t tokens);

}  // namespace kvc::profile
