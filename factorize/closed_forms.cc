#include "factorize/closed_forms.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "factorize/factor_bytes.h"
#include "factorize/key_collector.h"
#include "factorize/rank_spread.h"
#include "factorize/window_share.h"
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

// Factors every layer for several requests.
class ClosedFormPass {
 public:
  ClosedFormPass(const Checkpoint& checkpoint,
                 std::span<const FactorRequest> requests,
                 const linalg::Svd& svd,
                 Ranks& ranks)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        requests_(requests),
        svd_(svd),
        ranks_(ranks),
        factors_(requests.size(), std::vector<LayerFactors>(config_.num_layers)) {}

  // From the weights alone.
  void RunWeights(Progress& progress) {
    for (int64_t l = 0; l < config_.num_layers; ++l) {
      for (size_t i = 0; i < requests_.size() && ranks_.Owns(l); ++i) Factor(i, l, nullptr);
      checkpoint_.ReleaseLayer(l);
      progress.Report("factorize", l + 1, config_.num_layers);
    }
  }

  // From one pass over the windows.
  void RunWindows(const Windows& windows, Progress& progress) {
    model::StreamOptions stream;
    stream.taps.projections = true;
    stream.one_of_many = !ranks_.is_only() && std::ssize(windows) > 1;
    for (const FactorRequest& request : requests_) AddCollector(request, stream.taps);
    const WindowShare share(windows, ranks_);
    sum_.emplace(ranks_, share.parts(), num_sums_);
    stream.after_layer = [&](int64_t layer, const std::vector<torch::Tensor>&) {
      FinishLayer(layer);
      sum_.emplace(ranks_, share.parts(), num_sums_);
    };
    const auto add = [&](int64_t layer, int64_t window, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
      for (KeyStatisticsCollector& collector : collectors_) collector.Add(layer, taps, weights);
      if (share.EndsPart(window)) AddPart();
    };
    (void)model::StreamWindows(checkpoint_, share.windows(), stream, add, progress, "factorize");
  }

  // Collective: returns the factors of all layers.
  std::vector<std::vector<LayerFactors>> TakeAll() {
    for (std::vector<LayerFactors>& layers : factors_) ShareFactors(ranks_, layers);
    return std::move(factors_);
  }

 private:
  void AddCollector(const FactorRequest& request, model::TapRequest& taps) {
    const ErrorWeights error_weights = WeightsOf(request.objective);
    const bool by_output = error_weights == ErrorWeights::kOutput;
    taps.probabilities |= error_weights != ErrorWeights::kNone;
    taps.attention |= by_output;
    const bool met = by_output && request.layout == KeyLayout::kLatent;
    collectors_.emplace_back(config_, CollectOptions{request.num_groups, error_weights, met});
    num_sums_ += collectors_.back().num_sums();
  }

  // Adds the windows since the last part as a part.
  void AddPart() {
    std::vector<double> part;
    part.reserve(num_sums_);
    for (KeyStatisticsCollector& collector : collectors_) collector.TakeSums(part);
    sum_->Add(part);
  }

  // Collective: keeps the layer's statistics if it is this rank's. When every rank has one, or
  // there are no more, they factor them side by side.
  void FinishLayer(int64_t layer) {
    const std::vector<double> sums = sum_->Finish();
    sum_.reset();
    if (ranks_.Owns(layer)) {
      std::span<const double> rest = sums;
      for (KeyStatisticsCollector& collector : collectors_) {
        held_.push_back(collector.Finish(layer, rest.first(collector.num_sums())));
        rest = rest.subspan(collector.num_sums());
      }
      held_layer_ = layer;
    }
    const bool turn_ends = ranks_.OwnerOf(layer) + 1 == ranks_.size();
    if (!turn_ends && layer + 1 < config_.num_layers) return;
    for (size_t i = 0; i < held_.size(); ++i) Factor(i, held_layer_, &held_[i]);
    held_.clear();
  }

  void Factor(size_t i, int64_t layer, const KeyStatistics* statistics) {
    FactorRequest request = requests_[i];
    if (!request.layer_ranks.empty()) request.group_ranks = request.layer_ranks[layer];
    factors_[i][layer] = FactorAlone(checkpoint_, request, layer, statistics, svd_);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const std::span<const FactorRequest> requests_;
  const linalg::Svd& svd_;
  Ranks& ranks_;
  std::vector<std::vector<LayerFactors>> factors_;  // [request][layer]
  std::vector<KeyStatisticsCollector> collectors_;  // [request]
  int64_t num_sums_ = 0;                            // of all collectors
  std::optional<OrderedSum<double>> sum_;           // of the layer, over all parts
  std::vector<KeyStatistics> held_;                 // [request] of held_layer_; empty: none
  int64_t held_layer_ = 0;
};

}  // namespace

std::vector<std::vector<LayerFactors>> FactorEach(const Checkpoint& checkpoint,
                                                  std::span<const FactorRequest> requests,
                                                  const Windows& windows,
                                                  const linalg::Svd& svd,
                                                  Progress& progress,
                                                  Ranks& ranks) {
  ClosedFormPass pass(checkpoint, requests, svd, ranks);
  if (windows.empty()) {
    pass.RunWeights(progress);
  } else {
    pass.RunWindows(windows, progress);
  }
  return pass.TakeAll();
}

std::vector<LayerFactors> FactorLayers(const Checkpoint& checkpoint,
                                       const FactorRequest& request,
                                       const Windows& windows,
                                       const linalg::Svd& svd,
                                       Progress& progress,
                                       Ranks& ranks) {
  const std::span one(&request, 1);
  return std::move(FactorEach(checkpoint, one, windows, svd, progress, ranks).front());
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
                                  std::vector<LayerFactors>& factors,
                                  Ranks& ranks) {
  const ModelConfig& config = source.config();
  const int64_t width = GroupWidth(config, uniform.num_groups);
  std::vector<double> sensitivity =
      MeasureSensitivity(source, MakeKeys(uniform, factors), factors,
                         SensitivityWindows(calibration), progress, ranks);
  std::vector<std::vector<std::vector<double>>> spectra;
  for (const LayerFactors& layer : factors) spectra.push_back(layer.spectra);
  FactorRequest spread = uniform;
  spread.layer_ranks =
      SpreadRanks(spectra, sensitivity, RankFor(uniform.rank, width, uniform.layout),
                  width >= 32 ? 8 : (uniform.layout == KeyLayout::kRopePairs ? 2 : 1));
  factors = FactorLayers(source, spread, calibration, svd, progress, ranks);
  return sensitivity;
}

}  // namespace kvc::factorize
