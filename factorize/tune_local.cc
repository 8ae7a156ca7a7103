#include "factorize/tune_local.h"

#include <optional>
#include <utility>

#include "core/base/error.h"
#include "factorize/layer_tuner.h"
#include "factorize/rank_tensors.h"
#include "factorize/thin_layer.h"
#include "factorize/window_share.h"
#include "model/embedding_rows.h"
#include "model/placement.h"
#include "model/threads.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

// Runs the full model's layer on every window: `hidden` [T, E] becomes the next layer's input.
// Returns the outputs of the layer's attention.
std::vector<AttentionTarget> RunFullLayer(const ModelConfig& config,
                                          const model::LayerWeights& weights,
                                          int64_t layer,
                                          ThreadPool& pool,
                                          std::vector<Tensor>& hidden) {
  std::vector<AttentionTarget> targets(hidden.size());
  model::TapRequest request;
  request.attention = true;
  pool.ParallelFor(static_cast<int64_t>(hidden.size()), 1, [&](int64_t i, int64_t) {
    const torch::NoGradGuard no_grad;
    model::LayerTaps taps;
    const Tensor next =
        model::LayerForward(config, weights, layer, hidden[i].unsqueeze(0), request, &taps);
    targets[i].output = torch::matmul(taps.attention[0], weights.o.t());     // [T, E]
    const Tensor energy = (hidden[i] + targets[i].output).square().sum(-1);  // [T]
    targets[i].weight = energy.reciprocal() / static_cast<double>(energy.size(0));
    hidden[i] = next.squeeze(0);
  });
  return targets;
}

class LocalTuning {
 public:
  LocalTuning(const Checkpoint& source,
              const KeyFactors& keys,
              const Windows& windows,
              const TuneOptions& options,
              Progress& progress,
              Ranks& ranks)
      : source_(source),
        config_(source.config()),
        thin_(ThinConfig(source.config(), keys)),
        options_(options),
        progress_(progress),
        ranks_(ranks),
        num_windows_(std::ssize(windows)),
        length_(std::ssize(windows[0])),
        pool_(single_.outer_threads()),
        device_(model::DeviceOf({options.cuda})),
        full_hidden_(model::EmbedWindows(source, OwnWindows(windows, ranks))) {
    for (Tensor& hidden : full_hidden_) hidden = hidden.to(device_);
    thin_hidden_ = full_hidden_;
  }

  std::vector<LayerTuning> RunLayers(const TuneState& state, std::vector<LayerFactors>& factors) {
    std::vector<LayerTuning> results;
    for (int64_t l = 0; l < config_.num_layers; ++l) {
      const model::LayerWeights full = model::LoadLayer(source_, l);
      source_.ReleaseLayer(l);
      const std::vector<AttentionTarget> targets =
          RunFullLayer(config_, model::PlaceOn(full, device_), l, pool_, full_hidden_);
      std::optional<LayerTuning> result = state.Load(l, factors[l]);
      model::LayerWeights thin = model::PlaceOn(ThinLayer(thin_, full, factors[l]), device_);
      if (!result) {
        result = Tune(l, targets, thin);
        TakeFactors(thin, factors[l]);
        state.Save(l, factors[l], *result);
      }
      results.push_back(*result);
      RunLayer(thin_, thin, l, pool_, thin_hidden_);
    }
    return results;
  }

 private:
  // Collective: returns all windows, from this rank's and the others'.
  std::vector<TuneWindow> ShareAll(const std::vector<AttentionTarget>& targets) {
    std::vector<Tensor> outputs, weights;  // [T, E], [T]
    for (const AttentionTarget& target : targets) {
      outputs.push_back(target.output);
      weights.push_back(target.weight);
    }
    const Tensor like = torch::empty({length_, config_.model_width}, device_);
    const std::vector<Tensor> hidden = ShareWindows(ranks_, thin_hidden_, num_windows_, like);
    outputs = ShareWindows(ranks_, outputs, num_windows_, like);
    weights = ShareWindows(ranks_, weights, num_windows_, torch::empty({length_}, device_));
    std::vector<TuneWindow> windows;
    for (int64_t i = 0; i < num_windows_; ++i) {
      windows.push_back({hidden[i], {outputs[i], weights[i]}});
    }
    return windows;
  }

  LayerTuning Tune(int64_t layer,
                   const std::vector<AttentionTarget>& targets,
                   model::LayerWeights& thin) {
    const std::vector<TuneWindow> windows = ShareAll(targets);
    // Reports progress in hundredths of a layer, because only the tuner knows the number of steps.
    const auto report = [&](int64_t done, int64_t total) {
      progress_.Report("tune", 100 * layer + 100 * done / total, 100 * config_.num_layers);
    };
    const LayerTuneReport tuned =
        TuneLayer(thin_, layer, windows, options_, pool_, report, thin, ranks_);
    return {tuned.error_before, tuned.error_after, tuned.kept_pass, options_.learning_rate};
  }

  const Checkpoint& source_;
  const ModelConfig& config_;
  const ModelConfig thin_;
  const TuneOptions& options_;
  Progress& progress_;
  Ranks& ranks_;
  const int64_t num_windows_;  // of all ranks
  const int64_t length_;       // T
  const model::SingleThreadedOperations single_;
  ThreadPool pool_;
  const torch::Device device_;
  std::vector<Tensor> full_hidden_;  // [T, E] of each of the rank's windows, what enters the layer
  std::vector<Tensor> thin_hidden_;  // the same in the thin model
};

}  // namespace

std::vector<LayerTuning> TuneLocally(const Checkpoint& source,
                                     const KeyFactors& keys,
                                     const Windows& windows,
                                     const TuneOptions& options,
                                     const TuneState& state,
                                     Progress& progress,
                                     std::vector<LayerFactors>& factors,
                                     Ranks& ranks) {
  return LocalTuning(source, keys, windows, options, progress, ranks).RunLayers(state, factors);
}

}  // namespace kvc::factorize
