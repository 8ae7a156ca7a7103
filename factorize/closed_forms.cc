#include "factorize/closed_forms.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "factorize/key_collector.h"
#include "factorize/rank_spread.h"
#include "model/streamed.h"

namespace kvc::factorize {
namespace {

LayerKeyWeights LoadKeyWeights(const Checkpoint& checkpoint, KeyLayout layout, int64_t layer) {
  LayerKeyWeights weights;
  weights.k = checkpoint.Load(Role::kK, layer);
  if (checkpoint.Has(Role::kKNorm, layer)) weights.k_norm = checkpoint.Load(Role::kKNorm, layer);
  if (layout == KeyLayout::kAbsorb) {
    weights.q = checkpoint.Load(Role::kQ, layer);
    if (checkpoint.Has(Role::kQBias, layer)) weights.q_bias = checkpoint.Load(Role::kQBias, layer);
  }
  return weights;
}

// Windows on which sensitivity is measured: few, every variant of the model runs on them.
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

std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                       const FactorRequest& request,
                                       const Windows& windows,
                                       const Svd& svd,
                                       Progress& progress,
                                       std::vector<KeyStatistics>* kept) {
  const ModelConfig& config = checkpoint.config();
  std::vector<LayerFactors> factors;
  if (windows.empty()) {
    for (int64_t l = 0; l < config.num_layers; ++l) {
      factors.push_back(FactorLayer(
          config, request, LoadKeyWeights(checkpoint, request.layout, l), nullptr, svd));
      checkpoint.ReleaseLayer(l);
      progress.Report("factorize", l + 1, config.num_layers);
    }
    return factors;
  }
  const bool with_attention = request.objective == Objective::kInputAttentionQuery;
  KeyStatisticsCollector collector(config, request.num_groups, with_attention);
  model::StreamOptions stream;
  stream.taps.projections = true;
  stream.taps.probabilities = with_attention;
  stream.after_layer = [&](int64_t layer, const std::vector<torch::Tensor>&) {
    KeyStatistics statistics = collector.Finish();
    factors.push_back(FactorLayer(
        config, request, LoadKeyWeights(checkpoint, request.layout, layer), &statistics, svd));
    if (kept != nullptr) kept->push_back(std::move(statistics));
  };
  (void)model::StreamWindows(
      checkpoint,
      windows,
      stream,
      [&](int64_t, int64_t, const model::LayerTaps& taps, const model::LayerWeights& weights) {
        collector.Add(taps, weights);
      },
      progress,
      "factorize");
  return factors;
}

KeyFactors MakeKeys(const FactorRequest& request, const std::vector<LayerFactors>& factors) {
  KeyFactors keys;
  keys.layout = request.layout;
  keys.num_groups = request.num_groups;
  for (const LayerFactors& layer : factors) keys.ranks.push_back(layer.ranks);
  return keys;
}

std::vector<double> SpreadFactors(const Checkpoint& source,
                                  const FactorRequest& uniform,
                                  const std::vector<KeyStatistics>& statistics,
                                  const Windows& calibration,
                                  const Svd& svd,
                                  Progress& progress,
                                  std::vector<LayerFactors>& factors) {
  const ModelConfig& config = source.config();
  const int64_t width = config.num_kv_heads / uniform.num_groups * config.head_width;
  std::vector<double> sensitivity = MeasureSensitivity(
      source, MakeKeys(uniform, factors), factors, SensitivityWindows(calibration), progress);
  std::vector<std::vector<std::vector<double>>> spectra;
  for (const LayerFactors& layer : factors) spectra.push_back(layer.spectra);
  const auto ranks =
      SpreadRanks(spectra, sensitivity, RankFor(uniform.rank, width), width >= 32 ? 8 : 1);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    FactorRequest request = uniform;
    request.group_ranks = ranks[l];
    factors[l] = FactorLayer(
        config, request, LoadKeyWeights(source, request.layout, l), &statistics[l], svd);
    source.ReleaseLayer(l);
  }
  return sensitivity;
}

}  // namespace kvc::factorize
