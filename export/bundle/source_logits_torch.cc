// SourceLogits in a build with LibTorch.

#include <algorithm>
#include <cmath>

#include "core/base/progress.h"
#include "core/base/rng.h"
#include "export/bundle/reference_logits.h"
#include "model/embedding_rows.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::bundle {
namespace {

// Runs with changed embeddings, of which the largest movement counts.
constexpr int64_t kDraws = 8;
constexpr uint64_t kDrawSeed = 21;

// Every element one unit in the last place up or down.
torch::Tensor NextFloats(const torch::Tensor& values, Rng& rng) {
  torch::Tensor changed = values.clone().contiguous();
  float* data = changed.data_ptr<float>();
  for (int64_t i = 0; i < changed.numel(); ++i) {
    data[i] = std::nextafter(data[i], rng.NextBelow(2) == 0 ? -INFINITY : INFINITY);
  }
  return changed;
}

// Logits [T, V] of last hidden states [T, E].
torch::Tensor LogitsOf(const ModelConfig& config,
                       const model::OuterWeights& head,
                       const torch::Tensor& hidden) {
  return model::Logits(config, head, hidden.unsqueeze(0)).squeeze(0).contiguous();
}

}  // namespace

std::optional<ReferenceLogits> SourceLogits(const Checkpoint& source, int num_threads) {
  model::SetThreads(num_threads);
  const torch::NoGradGuard no_grad;
  ReferenceLogits reference;
  reference.ids = VerificationIds(source.config());
  reference.narrow_windows = NarrowedWindows(source.config(), std::ssize(reference.ids));
  Checkpoint checkpoint = Checkpoint::Open(source.directory());
  if (reference.narrow_windows > 0) checkpoint.NarrowWindows(reference.narrow_windows);
  model::StreamOptions options;
  options.initial_hidden = model::EmbedWindows(checkpoint, {reference.ids});
  Rng rng(kDrawSeed);
  for (int64_t draw = 0; draw < kDraws; ++draw) {
    options.initial_hidden.push_back(NextFloats(options.initial_hidden[0], rng));
  }
  const std::vector<std::vector<int32_t>> windows(1 + kDraws, reference.ids);
  NoProgress silent;
  const std::vector<torch::Tensor> hidden =
      model::StreamWindows(checkpoint, windows, options, nullptr, silent, "logits");
  const model::OuterWeights head = model::LoadHead(checkpoint);
  const torch::Tensor logits = LogitsOf(checkpoint.config(), head, hidden[0]);  // [T, V]
  reference.logits.assign(logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel());
  torch::Tensor rounding = torch::zeros({logits.size(0)});  // [T]
  for (int64_t draw = 1; draw <= kDraws; ++draw) {
    const torch::Tensor moved = LogitsOf(checkpoint.config(), head, hidden[draw]) - logits;
    rounding = torch::maximum(rounding, moved.abs().amax(-1));
  }
  reference.rounding.assign(rounding.data_ptr<float>(),
                            rounding.data_ptr<float>() + rounding.numel());
  return reference;
}

}  // namespace kvc::bundle
