#pragma once
// Running many windows of tokens through a model that never is in memory whole: all windows through
// layer 0, then all through layer 1, ... Peak memory: one layer in float32, the hidden states of
// all windows, and one window's activations.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/tokenizer/tokenizer.h"
#include "model/decoder.h"

namespace kvc::model {

// Windows of equal length cut from documents: tokens of each document in turn, no special tokens,
// joined, then cut into `count` windows of `length`, spread evenly over what there is (seed-free).
// Throws kBadInput when the text gives fewer than one window, naming tokens found and needed; when
// it gives fewer than `count`, returns as many as there are.
[[nodiscard]] std::vector<std::vector<int32_t>> CutWindows(
    const Tokenizer& tokenizer,
    const std::vector<std::string>& documents,
    int64_t count,
    int64_t length);

// Called once for each (layer, window) in that order of loops: layer outer, window inner; always on
// the calling thread. Meanwhile other threads compute the next windows, and LibTorch runs on one
// thread, so long work that is not per window belongs into after_layer.
using LayerVisitor = std::function<void(
    int64_t layer, int64_t window, const LayerTaps& taps, const LayerWeights& weights)>;
struct StreamOptions {
  TapRequest taps;
  // Resume: `initial_hidden` [T, E] of each window is what `after_layer` last saw, the input of
  // layer `first_layer`. Empty with first_layer = 0: the embeddings.
  int64_t first_layer = 0;
  std::vector<torch::Tensor> initial_hidden;
  // Where layers are computed; hidden states come from and go back to the CPU, taps stay there.
  torch::Device device = torch::kCPU;
  // Called after all windows went through `layer`, with the next layer's inputs [T, E].
  std::function<void(int64_t layer, const std::vector<torch::Tensor>& hidden)> after_layer;
};

// Streams `windows` through `checkpoint`. Returns the last hidden states [T, E] of each window
// (after the last layer, before the final norm). No gradients.
[[nodiscard]] std::vector<torch::Tensor> StreamWindows(
    const Checkpoint& checkpoint,
    const std::vector<std::vector<int32_t>>& windows,
    const StreamOptions& options,
    const LayerVisitor& visitor,
    Progress& progress,
    const std::string& stage);

// Logits [T, V] of one sequence, streamed.
[[nodiscard]] torch::Tensor SequenceLogits(const Checkpoint& checkpoint,
                                           std::span<const int32_t> ids);

// How far a model is from a reference on the same windows, teacher-forced, no cache compression.
// All means are over the tokens that have a successor: T - 1 of each window.
struct ModelDistance {
  double kld = 0.0;         // mean of KL(reference || model), nats
  double perplexity = 0.0;  // of the model
  double reference_perplexity = 0.0;
  int64_t tokens = 0;
};

// The reference's side of a comparison, computed once and used for several models: its last hidden
// states, not its logits.
struct ReferenceRun {
  ModelConfig config;
  OuterWeights outer;
  std::vector<std::vector<int32_t>> windows;
  std::vector<torch::Tensor> hidden;  // [T, E] each
};
[[nodiscard]] ReferenceRun RunReference(const Checkpoint& reference,
                                        const std::vector<std::vector<int32_t>>& windows,
                                        Progress& progress);
// `model` on the reference's windows. Throws kBadShape when the vocabularies differ, kNumeric when
// a logit is not finite.
[[nodiscard]] ModelDistance CompareWith(const ReferenceRun& reference,
                                        const Checkpoint& model,
                                        Progress& progress);
// The same for last hidden states ([T, E] each window) that the caller has.
[[nodiscard]] ModelDistance CompareHidden(const ReferenceRun& reference,
                                          const ModelConfig& config,
                                          const OuterWeights& outer,
                                          const std::vector<torch::Tensor>& hidden,
                                          Progress& progress);
[[nodiscard]] ModelDistance CompareModels(const Checkpoint& reference,
                                          const Checkpoint& model,
                                          const std::vector<std::vector<int32_t>>& windows,
                                          Progress& progress);

}  // namespace kvc::model
