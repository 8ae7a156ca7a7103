#include "factorize/tune_global.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "factorize/global_training.h"
#include "factorize/thin_layer.h"
#include "model/embedding_rows.h"
#include "model/reference_run.h"
#include "model/streamed.h"
#include "model/threads.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr int64_t kSizeWindows = 4;        // that the sizes of inputs are taken from
constexpr double kCeRateShare = 0.2;       // as from a divergence of 0.04
constexpr double kReferenceWidth = 128.0;  // at which --lr is the rate
constexpr double kReferenceLayers = 4.0;   // the same

std::vector<Tensor> SizeWindows(const TrainingText& text) {
  const auto count = std::min<int64_t>(kSizeWindows, std::ssize(text.embedded));
  return {text.embedded.begin(), text.embedded.begin() + count};
}

model::LayerWeights LoadAndRelease(const Checkpoint& source, int64_t layer) {
  model::LayerWeights weights = model::LoadLayer(source, layer);
  source.ReleaseLayer(layer);
  return weights;
}

}  // namespace

double GlobalRateShare(OutputLoss loss, double loss_before, const ModelConfig& config) {
  const double share =
      loss == OutputLoss::kKl ? std::sqrt(std::min(1.0, loss_before)) : kCeRateShare;
  const double depth = std::max(1.0, static_cast<double>(config.num_layers) / kReferenceLayers);
  return share * kReferenceWidth / static_cast<double>(config.model_width) / depth;
}

GlobalTuning TuneGlobally(const Checkpoint& source,
                          const KeyFactors& keys,
                          const Windows& windows,
                          const GlobalTuneOptions& options,
                          const std::filesystem::path& state,
                          Progress& progress,
                          std::vector<LayerFactors>& factors,
                          Ranks& ranks) {
  const TrainingText text = ReadTrainingText(source, windows, options, progress, ranks);
  const model::OuterWeights outer = model::LoadOuter(source);
  const ModelConfig thin = ThinConfig(source.config(), keys);
  std::vector<model::LayerWeights> layers;
  for (int64_t l = 0; l < thin.num_layers; ++l) {
    layers.push_back(ThinLayer(thin, LoadAndRelease(source, l), factors[l]));
  }
  const model::SingleThreadedOperations single;
  ThreadPool pool(single.outer_threads());
  TrainedModel model(thin, layers, outer, SizeWindows(text), options.compute, pool);
  layers.clear();
  GlobalTuning tuning = TrainGlobally(model, text, options, state, "global tuning",
                                      single.outer_threads(), progress, ranks);
  if (tuning.kept_step > 0) {
    for (int64_t l = 0; l < thin.num_layers; ++l) TakeFactors(model.layers()[l], factors[l]);
  }
  return tuning;
}

ControlResult TuneControl(const Checkpoint& source,
                          const model::ReferenceRun& held_back,
                          const Windows& windows,
                          const GlobalTuneOptions& options,
                          const std::filesystem::path& state,
                          Progress& progress) {
  ControlResult control;
  control.loss = options.loss;
  std::vector<Tensor> hidden = model::EmbedWindows(source, held_back.windows);  // [T, E] each
  if (options.loss == OutputLoss::kKl) {
    hidden = held_back.hidden;
  } else {
    Ranks& ranks = *held_back.ranks;
    const TrainingText text = ReadTrainingText(source, windows, options, progress, ranks);
    std::vector<model::LayerWeights> layers;
    for (int64_t l = 0; l < source.config().num_layers; ++l) {
      layers.push_back(LoadAndRelease(source, l));
    }
    const model::SingleThreadedOperations single;
    ThreadPool pool(single.outer_threads());
    TrainedModel model(source.config(), layers, held_back.outer, SizeWindows(text), options.compute,
                       pool);
    layers.clear();
    control.training = TrainGlobally(model, text, options, state, "control", single.outer_threads(),
                                     progress, ranks);
    for (int64_t l = 0; l < source.config().num_layers; ++l) {
      RunLayer(source.config(), model.layers()[l], l, pool, hidden);
    }
  }
  const auto distance =
      model::CompareHidden(held_back, source.config(), held_back.outer, hidden, progress);
  control.kld = distance.kld;
  control.perplexity = distance.perplexity;
  return control;
}

}  // namespace kvc::factorize
