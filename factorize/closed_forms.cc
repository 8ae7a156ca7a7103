#include "factorize/closed_forms.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "factorize/key_collector.h"
#include "factorize/rank_spread.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::factorize {
namespace {

LayerKeyWeights LoadKeyWeights(const Checkpoint& checkpoint, KeyLayout layout, int64_t layer) {
  LayerKeyWeights weights;
  if (layout == KeyLayout::kPostRope) return weights;  // the projections stay as they are
  const auto load = [&](Role role, std::vector<float>& values) {
    if (checkpoint.Has(role, layer)) values = checkpoint.Load(role, layer);
  };
  load(Role::kK, weights.k);
  load(Role::kKNorm, weights.k_norm);
  if (layout == KeyLayout::kAbsorb || layout == KeyLayout::kRopePairs) {
    load(Role::kQ, weights.q);
    load(Role::kQBias, weights.q_bias);
    load(Role::kKBias, weights.k_bias);
  }
  return weights;
}

// Runs FactorLayer on one thread: the libraries split products by their number of threads, and
// another split rounds differently.
LayerFactors FactorAlone(const Checkpoint& checkpoint,
                         const FactorRequest& request,
                         int64_t layer,
                         const KeyStatistics* statistics,
                         const linalg::Svd& svd) {
  const LayerKeyWeights weights = LoadKeyWeights(checkpoint, request.layout, layer);
  const model::SingleThreadedOperations single;
  return FactorLayer(checkpoint.config(), request, weights, statistics, svd);
}

// Returns the windows on which sensitivity is measured: few, because every variant of the model
// runs on them.
Windows SensitivityWindows(const Windows& calibration) {
  constexpr int64_t kCount = 3;
  constexpr int64_t kLength = 256;
  Windows windows;
  const int64_t count = std::min(kCount, std::ssize(calibration));
  for (int64_t i = 0; i < count; ++i) {
    const auto& window = calibration[(2 * i + 1) * std::ssize(calibration) / (2 * count)];
    windows.emplace_back(window.begin(), window.begin() + std::min(kLength, std::ssize(window)));
  }
  return windows;
}

}  // namespace

std::vector<std::vector<LayerFactors>> FactorEach(const Checkpoint& checkpoint,
                                                  std::span<const FactorRequest> requests,
                                                  const Windows& windows,
                                                  const linalg::Svd& svd,
                                                  Progress& progress) {
  const ModelConfig& config = checkpoint.config();
  std::vector<std::vector<LayerFactors>> factors(requests.size());
  const auto factor = [&](size_t i, int64_t layer, const KeyStatistics* statistics) {
    FactorRequest request = requests[i];
    if (!request.layer_ranks.empty()) request.group_ranks = request.layer_ranks[layer];
    factors[i].push_back(FactorAlone(checkpoint, request, layer, statistics, svd));
  };
  if (windows.empty()) {
    for (int64_t l = 0; l < config.num_layers; ++l) {
      for (size_t i = 0; i < requests.size(); ++i) factor(i, l, nullptr);
      checkpoint.ReleaseLayer(l);
      progress.Report("factorize", l + 1, config.num_layers);
    }
    return factors;
  }
  std::vector<KeyStatisticsCollector> collectors;
  model::StreamOptions stream;
  stream.taps.projections = true;
  for (const FactorRequest& request : requests) {
    const ErrorWeights error_weights = WeightsOf(request.objective);
    const bool by_output = error_weights == ErrorWeights::kOutput;
    stream.taps.probabilities |= error_weights != ErrorWeights::kNone;
    stream.taps.attention |= by_output;
    const bool met = by_output && request.layout == KeyLayout::kLatent;
    collectors.emplace_back(config, CollectOptions{request.num_groups, error_weights, met});
  }
  stream.after_layer = [&](int64_t layer, const std::vector<torch::Tensor>&) {
    for (size_t i = 0; i < requests.size(); ++i) {
      const KeyStatistics statistics = collectors[i].Finish();
      factor(i, layer, &statistics);
    }
  };
  (void)model::StreamWindows(
      checkpoint, windows, stream,
      [&](int64_t layer, int64_t, const model::LayerTaps& taps,
          const model::LayerWeights& weights) {
        for (KeyStatisticsCollector& collector : collectors) collector.Add(layer, taps, weights);
      },
      progress, "factorize");
  return factors;
}

std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                       const FactorRequest& request,
                                       const Windows& windows,
                                       const linalg::Svd& svd,
                                       Progress& progress) {
  return std::move(FactorEach(checkpoint, std::span(&request, 1), windows, svd, progress).front());
}

KeyFactors MakeKeys(const FactorRequest& request, const std::vector<LayerFactors>& factors) {
  KeyFactors keys;
  keys.layout = request.layout;
  keys.num_groups = request.num_groups;
  for (const LayerFactors& layer : factors) {
    keys.ranks.push_back(layer.ranks);
    if (request.layout == KeyLayout::kRopePairs) keys.pairs.push_back(layer.pairs);
  }
  return keys;
}

std::vector<double> SpreadFactors(const Checkpoint& source,
                                  const FactorRequest& uniform,
                                  const Windows& calibration,
                                  const linalg::Svd& svd,
                                  Progress& progress,
                                  std::vector<LayerFactors>& factors) {
  const ModelConfig& config = source.config();
  const int64_t width = GroupWidth(config, uniform.num_groups);
  std::vector<double> sensitivity = MeasureSensitivity(source, MakeKeys(uniform, factors), factors,
                                                       SensitivityWindows(calibration), progress);
  std::vector<std::vector<std::vector<double>>> spectra;
  for (const LayerFactors& layer : factors) spectra.push_back(layer.spectra);
  FactorRequest spread = uniform;
  spread.layer_ranks =
      SpreadRanks(spectra, sensitivity, RankFor(uniform.rank, width, uniform.layout),
                  width >= 32 ? 8 : (uniform.layout == KeyLayout::kRopePairs ? 2 : 1));
  factors = FactorLayers(source, spread, calibration, svd, progress);
  return sensitivity;
}

}  // namespace kvc::factorize
