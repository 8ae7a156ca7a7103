#pragma once
// A thin model that exists in memory only: the source's layers with factors in the place of their
// keys. What tuning trains and what ranks are judged by, without writing a checkpoint. (Shows
// LibTorch's types, as model/decoder.h does.)

#include <vector>

#include "core/base/thread_pool.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/layer_factors.h"
#include "model/decoder.h"

namespace kvc::factorize {

// The source's configuration with thin keys.
[[nodiscard]] ModelConfig ThinConfig(const ModelConfig& source, const KeyFactors& keys);

// `full` with the query and key side of `factors`; everything else is shared.
[[nodiscard]] model::LayerWeights ThinLayer(const ModelConfig& thin,
                                            const model::LayerWeights& full,
                                            const LayerFactors& factors);
// The inverse of ThinLayer after training.
void TakeFactors(const model::LayerWeights& weights, LayerFactors& factors);

// All windows' hidden states [T, E] through one layer, in place, windows side by side. No autograd.
// Computes where the weights are; hidden states stay where they are.
void RunLayer(const ModelConfig& config,
              const model::LayerWeights& weights,
              int64_t layer,
              ThreadPool& pool,
              std::vector<torch::Tensor>& hidden);

}  // namespace kvc::factorize
