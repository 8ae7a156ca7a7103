#include "factorize/rank_spread.h"

#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "factorize/rank_tensors.h"
#include "factorize/thin_layer.h"
#include "model/embedding_rows.h"
#include "model/reference_run.h"
#include "model/threads.h"
#include "solver/greedy_solver.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

// Returns the energy that a group loses at rank r.
double Tail(const std::vector<double>& spectrum, int64_t rank) {
  return std::accumulate(spectrum.begin() + rank, spectrum.end(), 0.0);
}

// Returns the hidden states after the last layer: first the full model's windows, then those of
// each of this rank's variants.
std::vector<Tensor> RunVariants(const Checkpoint& source,
                                const KeyFactors& keys,
                                const std::vector<LayerFactors>& factors,
                                const Windows& windows,
                                Progress& progress,
                                const Ranks& ranks) {
  const ModelConfig& config = source.config();
  const ModelConfig thin = ThinConfig(config, keys);
  const model::SingleThreadedOperations single;
  ThreadPool pool(single.outer_threads());
  std::vector<Tensor> hidden = model::EmbedWindows(source, windows);  // [T, E] each
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const model::LayerWeights full = model::LoadLayer(source, l);
    source.ReleaseLayer(l);
    std::vector<Tensor> variant;
    if (ranks.Owns(l)) {
      variant.assign(hidden.begin(), hidden.begin() + std::ssize(windows));
      RunLayer(thin, ThinLayer(thin, full, factors[l]), l, pool, variant);
    }
    RunLayer(config, full, l, pool, hidden);
    hidden.insert(hidden.end(), variant.begin(), variant.end());
    progress.Report("sensitivity", l + 1, 2 * config.num_layers);
  }
  return hidden;
}

}  // namespace

std::vector<double> MeasureSensitivity(const Checkpoint& source,
                                       const KeyFactors& keys,
                                       const std::vector<LayerFactors>& factors,
                                       const Windows& windows,
                                       Progress& progress,
                                       Ranks& ranks) {
  const std::vector<Tensor> hidden = RunVariants(source, keys, factors, windows, progress, ranks);
  const auto count = std::ssize(windows);
  const auto part = [&](int64_t i) {
    return std::vector<Tensor>(hidden.begin() + i * count, hidden.begin() + (i + 1) * count);
  };
  const model::ReferenceRun reference{source.config(), model::LoadHead(source), windows, part(0)};
  const int64_t num_layers = source.config().num_layers;
  std::vector<double> own;
  NoProgress silent;
  for (const int64_t l : ranks.PartsOf(num_layers)) {
    const auto distance = model::CompareHidden(reference, source.config(), reference.outer,
                                               part(std::ssize(own) + 1), silent);
    own.push_back(distance.kld);
    progress.Report("sensitivity", num_layers + l + 1, 2 * num_layers);
  }
  return ShareNumbers(ranks, own, num_layers);
}

std::vector<std::vector<int64_t>> SpreadRanks(
    const std::vector<std::vector<std::vector<double>>>& spectra,
    const std::vector<double>& sensitivity,
    int64_t uniform_rank,
    int64_t step) {
  KVC_CHECK(spectra.size() == sensitivity.size() && !spectra.empty(), kInternal,
            "spread: expected spectra and sensitivity of the same layers");
  std::vector<solver::Curve> curves;
  for (size_t l = 0; l < spectra.size(); ++l) {
    double at_uniform = 0.0;
    for (const auto& spectrum : spectra[l]) at_uniform += Tail(spectrum, uniform_rank);
    const bool known = at_uniform > 0.0 && sensitivity[l] > 0.0;
    const double unit = known ? sensitivity[l] / at_uniform : 0.0;
    for (const auto& spectrum : spectra[l]) {
      const int64_t width = std::ssize(spectrum);
      solver::Curve& curve = curves.emplace_back();
      if (!known) {
        curve.push_back({static_cast<double>(uniform_rank), 0.0});
        continue;
      }
      for (int64_t rank = std::min(step, width); rank < width; rank += step) {
        curve.push_back({static_cast<double>(rank), unit * Tail(spectrum, rank)});
      }
      curve.push_back({static_cast<double>(width), 0.0});
    }
  }
  const auto budget = static_cast<double>(uniform_rank * std::ssize(curves));
  const solver::Allocation allocation = solver::SolveGreedy(curves, budget);
  std::vector<std::vector<int64_t>> ranks;
  size_t curve = 0;
  for (const auto& layer : spectra) {
    auto& row = ranks.emplace_back();
    for (size_t n = 0; n < layer.size(); ++n, ++curve) {
      row.push_back(static_cast<int64_t>(curves[curve][allocation.choice[curve]].cost));
    }
  }
  return ranks;
}

}  // namespace kvc::factorize
