#include "model/continuation.h"

#include <algorithm>
#include <cmath>

#include <torch/types.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "model/layer_step.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::model {
namespace {

using torch::Tensor;

constexpr int64_t kResidentBytes = int64_t{1} << 30;

void CheckArguments(const std::vector<std::vector<int32_t>>& contexts,
                    const std::vector<std::vector<int32_t>>& forced,
                    const ContinuationOptions& options) {
  KVC_CHECK(options.temperature >= 0.0 && std::isfinite(options.temperature), kUsage,
            "--temperature: expected 0 or more, got {}", options.temperature);
  bool fits = !contexts.empty() && (forced.empty() || forced.size() == contexts.size());
  for (const auto& context : contexts) {
    fits = fits && !context.empty() && context.size() == contexts.front().size();
  }
  for (const auto& tokens : forced) fits = fits && std::ssize(tokens) <= options.tokens;
  KVC_CHECK(fits, kBadShape,
            "continuations: expected contexts of one length, and no more forced tokens than "
            "tokens, got others");
}

int64_t LayerBytes(const LayerWeights& w) {
  int64_t bytes = 0;
  for (const Tensor* weight : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down, &w.k_rebuild}) {
    if (weight->defined()) bytes += weight->numel() * static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

// Draws a token from logits [V].
int32_t Draw(const Tensor& logits, double temperature, Rng& rng) {
  KVC_CHECK(torch::isfinite(logits).all().item<bool>(), kNumeric,
            "continuation: expected finite logits, got NaN or infinity; check the weights");
  if (temperature == 0.0) return logits.argmax().item<int32_t>();
  const Tensor scaled = logits.to(torch::kFloat64) / temperature;
  const Tensor sums = torch::softmax(scaled, 0).cumsum(0).contiguous();
  const double* begin = sums.data_ptr<double>();
  const double* end = begin + sums.numel();
  const double at = rng.NextDouble() * *(end - 1);
  const double* found = std::upper_bound(begin, end, at);
  return static_cast<int32_t>(std::min(found, end - 1) - begin);
}

class Sampler {
 public:
  Sampler(const Checkpoint& checkpoint, int64_t sequences, int64_t room)
      : checkpoint_(checkpoint), config_(checkpoint.config()), outer_(LoadOuter(checkpoint)) {
    rows_.resize(config_.num_layers);
    layers_.resize(config_.num_layers);
    for (LayerRows& rows : rows_) {
      rows.v = torch::zeros({sequences, config_.num_kv_heads, room, config_.head_width});
    }
  }

  // Streams the contexts. Returns the last token's hidden state of each, [N, 1, E].
  Tensor Prefill(const std::vector<std::vector<int32_t>>& contexts, Progress& progress) {
    const auto tokens = static_cast<int64_t>(contexts.front().size());
    StreamOptions stream;
    stream.taps.projections = true;
    const auto keep = [&](int64_t layer, int64_t i, const LayerTaps& taps, const LayerWeights&) {
      LayerRows& rows = rows_[layer];
      if (!rows.k.defined()) {
        const Tensor& v = rows.v;
        rows.k = torch::zeros({v.size(0), v.size(1), v.size(2), taps.k.size(3)});
      }
      rows.k[i].narrow(1, 0, tokens).copy_(taps.k[0]);
      rows.v[i].narrow(1, 0, tokens).copy_(taps.v[0]);
      rows.tokens = tokens;
    };
    const std::vector<Tensor> hidden =
        StreamWindows(checkpoint_, contexts, stream, keep, progress, "contexts");
    std::vector<Tensor> last;
    for (const Tensor& rows : hidden) last.push_back(rows.narrow(0, tokens - 1, 1));
    return torch::stack(last);
  }

  // Returns the next token's hidden state of each sequence: ids [N] -> [N, 1, E].
  Tensor Step(const std::vector<int32_t>& ids) {
    OuterWeights here = outer_;  // the position embedding from this position on
    if (here.position_embedding.defined()) {
      const int64_t position = rows_.front().tokens;
      here.position_embedding = here.position_embedding.narrow(0, position, 1);
    }
    const Tensor tokens =
        torch::tensor(std::vector<int64_t>(ids.begin(), ids.end())).unsqueeze(1);  // [N, 1]
    Tensor hidden = Embed(config_, here, tokens);
    for (int64_t l = 0; l < config_.num_layers; ++l) {
      hidden = LayerStep(config_, Layer(l), l, hidden, rows_[l]);
      if (!layers_[l].q.defined()) passing_ = {};
    }
    return hidden;
  }

  [[nodiscard]] Tensor LogitsOf(const Tensor& hidden) const {
    return Logits(config_, outer_, hidden);
  }

 private:
  // Returns a layer, kept from the first step on while there is room, otherwise only until the next
  // layer.
  const LayerWeights& Layer(int64_t layer) {
    if (layers_[layer].q.defined()) return layers_[layer];
    LayerWeights loaded = LoadLayer(checkpoint_, layer);
    checkpoint_.ReleaseLayer(layer);
    const int64_t bytes = LayerBytes(loaded);
    if (resident_ + bytes > kResidentBytes) {
      passing_ = std::move(loaded);
      return passing_;
    }
    resident_ += bytes;
    layers_[layer] = std::move(loaded);
    return layers_[layer];
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  OuterWeights outer_;
  std::vector<LayerRows> rows_;
  std::vector<LayerWeights> layers_;  // undefined: not kept
  LayerWeights passing_;
  int64_t resident_ = 0;
};

}  // namespace

std::vector<std::vector<int32_t>> SampleContinuations(
    const Checkpoint& checkpoint,
    const std::vector<std::vector<int32_t>>& contexts,
    const std::vector<std::vector<int32_t>>& forced,
    const ContinuationOptions& options,
    Progress& progress) {
  CheckArguments(contexts, forced, options);
  const torch::NoGradGuard no_grad;
  const int64_t sequences = std::ssize(contexts);
  std::vector<std::vector<int32_t>> continuations(contexts.size());
  Sampler sampler(checkpoint, sequences,
                  std::ssize(contexts.front()) + std::max<int64_t>(options.tokens, 1));
  Tensor hidden = sampler.Prefill(contexts, progress);  // [N, 1, E]
  // Products that are split by the number of threads round differently.
  const SingleThreadedOperations single;
  std::vector<Rng> generators;
  for (int64_t i = 0; i < sequences; ++i) {
    generators.emplace_back(options.seed + 1000003 * static_cast<uint64_t>(i));
  }
  for (int64_t t = 0; t < options.tokens; ++t) {
    const Tensor logits = sampler.LogitsOf(hidden);  // [N, 1, V]
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < sequences; ++i) {
      const bool given = !forced.empty() && t < std::ssize(forced[i]);
      ids.push_back(given ? forced[i][t] : Draw(logits[i][0], options.temperature, generators[i]));
      continuations[i].push_back(ids.back());
    }
    progress.Report("continuations", t + 1, options.tokens);
    if (t + 1 < options.tokens) hidden = sampler.Step(ids);
  }
  return continuations;
}

}  // namespace kvc::model
