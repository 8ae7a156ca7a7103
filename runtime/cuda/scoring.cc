#include "runtime/cuda/scoring.h"

#include <span>
#include <utility>

#include "core/cache/cache_spec.h"
#include "runtime/cpu/scoring.h"
#include "runtime/cuda/layer_sums.h"
#include "runtime/cuda/unsettled_layer.h"
#include "scorers/tier_loss.h"

namespace kvc::runtime {
namespace {

// The scores, and losses of narrow tiers, of one head by its sums on the host.
GroupScores FinishHead(const LayerSums& sums,
                       const HeadSums& head,
                       const scorers::Scorer& scorer,
                       const CacheSpec& spec,
                       double residual_energy) {
  const WantedSums& wanted = sums.wanted();
  const SumArray& errors = spec.scorer.options.mean ? head.errors : head.maxima;
  scorers::TokenSums counts;
  counts.by_window = sums.OnHost(wanted.attention ? head.attention : errors);
  counts.by_prompt = sums.OnHost(head.by_prompt);
  counts.by_keys = sums.OnHost(head.keys);
  counts.heads = head.heads;
  counts.window = head.window;
  counts.prompt_queries = head.prompt_queries;
  counts.sinks = spec.sinks;
  counts.residual_energy = residual_energy;
  GroupScores result;
  result.scores.resize(static_cast<size_t>(head.rows));
  scorer.Finish(counts, result.scores);
  if (!wanted.losses) return result;
  const int64_t columns = std::ssize(spec.tiers);
  result.losses.resize(static_cast<size_t>(head.rows * columns));
  const MatrixD losses(result.losses.data(), head.rows, columns);
  for (int64_t t = 0; t < columns; ++t) {
    const SumArray& dropped = wanted.largest_losses ? head.maxima : head.errors;
    const std::span<const float> column = sums.OnHost(t == 0 ? dropped : head.tiers[t - 1]);
    for (int64_t j = 0; j < head.rows; ++j) losses(j, t) = column[j];
  }
  scorers::ScaleLosses(counts, scorers::TierLossOptionsOf(spec.scorer), losses);
  return result;
}

}  // namespace

std::vector<GroupScores> ScoreOnDevice(const ScoreRequest& request,
                                       const CudaModel& model,
                                       SequenceCache& cache,
                                       DeviceBases& bases,
                                       ThreadPool& pool,
                                       CudaDevice& device) {
  LayerSums sums(request, model, cache, bases, pool, device);
  const DeviceTurn turn(device);
  sums.Find();
  sums.Download();
  LayerCache& store = cache.layer(request.layer);
  DownloadEnergy(store, device);
  device.Synchronize();
  std::vector<std::vector<GroupScores>> groups(store.groups.size());
  for (const HeadSums& head : sums.heads()) groups[head.place.group].emplace_back();
  pool.ParallelFor(std::ssize(sums.heads()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const HeadSums& head = sums.heads()[i];
      groups[head.place.group][head.place.plane] =
          FinishHead(sums, head, *request.scorer, cache.spec(), store.residual_energy);
    }
  });
  return CombinePlanes(*request.scorer, std::move(groups));
}

}  // namespace kvc::runtime
