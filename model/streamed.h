#pragma once
// Runs many windows of tokens through a model that is never in memory as a whole: all windows go
// through layer 0, then all through layer 1, and so on. Peak memory is one layer in float32, the
// hidden states of all windows, and one window's activations.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "model/decoder.h"

namespace kvc::model {

// Called once for each (layer, window), with the layer as the outer loop and the window as the
// inner one, always on the calling thread. Meanwhile other threads compute the next windows and
// LibTorch runs on one thread, so long work that is not per window belongs in after_layer.
using LayerVisitor = std::function<void(
    int64_t layer, int64_t window, const LayerTaps& taps, const LayerWeights& weights)>;
struct StreamOptions {
  TapRequest taps;
  // Resumes a run: `initial_hidden` [T, E] of each window is what `after_layer` last saw, the input
  // of layer `first_layer`. An empty one, with first_layer = 0, means the embeddings.
  int64_t first_layer = 0;
  std::vector<torch::Tensor> initial_hidden;
  // Device that computes the layers; hidden states come from and return to the CPU, taps stay on
  // the device.
  torch::Device device = torch::kCPU;
  // The windows are some of a larger number, the others of which run elsewhere (another rank): the
  // operations of a lone window stay on one thread, as those of several do.
  bool one_of_many = false;
  // Called after all windows have passed `layer`, with the next layer's inputs [T, E].
  std::function<void(int64_t layer, const std::vector<torch::Tensor>& hidden)> after_layer;
};

// Streams `windows` through `checkpoint`. Returns the last hidden states [T, E] of each window
// (after the last layer, before the final norm). Computes no gradients.
[[nodiscard]] std::vector<torch::Tensor> StreamWindows(
    const Checkpoint& checkpoint,
    const std::vector<std::vector<int32_t>>& windows,
    const StreamOptions& options,
    const LayerVisitor& visitor,
    Progress& progress,
    const std::string& stage);

// Returns the logits [T, V] of one sequence, streamed.
[[nodiscard]] torch::Tensor SequenceLogits(const Checkpoint& checkpoint,
                                           std::span<const int32_t> ids);

}  // namespace kvc::model
