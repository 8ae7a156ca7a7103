#pragma once
// A thin model that exists in memory only: the source's layers with factors instead of their keys.
// Tuning trains it and ranks are judged by it, without writing a checkpoint. (This header shows
// LibTorch's types, like model/decoder.h.)

#include <vector>

#include "core/base/thread_pool.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/layer_factors.h"
#include "model/decoder.h"

namespace kvc::factorize {

// Returns the source's configuration with thin keys.
[[nodiscard]] ModelConfig ThinConfig(const ModelConfig& source, const KeyFactors& keys);

// Returns `full` with the query and key side of `factors`; everything else is shared.
[[nodiscard]] model::LayerWeights ThinLayer(const ModelConfig& thin,
                                            const model::LayerWeights& full,
                                            const LayerFactors& factors);
// Inverts ThinLayer after training: takes the factors from `weights`.
void TakeFactors(const model::LayerWeights& weights, LayerFactors& factors);

// Runs all windows' hidden states [T, E] through one layer, in place, windows side by side. Uses no
// autograd. Computes on the device of the weights; hidden states stay on their device.
void RunLayer(const ModelConfig& config,
              const model::LayerWeights& weights,
              int64_t layer,
              ThreadPool& pool,
              std::vector<torch::Tensor>& hidden);

}  // namespace kvc::factorize
