#include "profile/mixed_curves.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/base/rank_bytes.h"
#include "core/base/round_rows.h"
#include "core/cache/loss_map.h"
#include "core/cache/profile_file.h"
#include "linalg/basis.h"
#include "model/ordered_work.h"
#include "model/projections.h"
#include "model/threads.h"
#include "profile/drop_losses.h"
#include "profile/head_basis.h"
#include "profile/latent_keys.h"
#include "profile/utility_curve.h"
#include "scorers/tier_loss.h"
#include "solver/tier_choice.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

// A dense float matrix.
ConstMatrixF View(const Tensor& x) { return {x.data_ptr<float>(), x.size(0), x.size(1)}; }

// What a tier keeps of a head's rows.
struct Kept {
  int64_t width = 0;                     // coordinates
  std::optional<RowFormat> format = {};  // none: as exactly as the cache
  CodeSteps steps = {};
};

// Returns what a tier keeps of x [T, D]: [T, D].
Tensor Approximate(const Tensor& x, const linalg::BasisView& basis, const Kept& kept) {
  std::vector<float> storage(static_cast<size_t>(x.size(0) * kept.width));
  const MatrixF coordinates(storage.data(), x.size(0), kept.width);
  linalg::ToCoordinates(View(x), basis, coordinates);
  if (kept.format) RoundRows(coordinates, *kept.format, kept.steps);
  Tensor y = torch::empty_like(x);
  linalg::FromCoordinates(coordinates, basis, MatrixF(y.data_ptr<float>(), y.size(0), y.size(1)));
  return y;
}

// The points of a scorer's maps: [L, groups, 2, points], scores, then losses.
std::string MapSum(const std::string& scorer) { return "losses." + scorer; }

CodeSteps StepsFor(CodeSteps (*find)(const LayerBases&, const RowFormat&, int64_t),
                   const LayerBases& bases,
                   const std::optional<RowFormat>& format,
                   int64_t head) {
  return format ? find(bases, *format, head) : CodeSteps();
}

}  // namespace

std::string MixedSum(const std::string& scorer) { return "mixed." + scorer; }

bool HasMixedCurve(const ScorerSpec& scorer) {
  // KeyDiff's share of the tokens is chosen by rank.
  return scorers::ScoresAreLosses(scorer.kind) && scorer.options.keydiff == 0.0;
}

MixedCollector::MixedCollector(const ModelConfig& config,
                               const ProfileOptions& options,
                               ProfileSums& sums,
                               Ranks& ranks)
    : config_(config), options_(options), sums_(sums), ranks_(ranks), tiers_(options.tiers.tiers) {
  if (tiers_.size() < 2) return;
  for (size_t i = 0; i < options.scorers.size(); ++i) {
    if (!HasMixedCurve(options.scorers[i])) continue;
    scorers_.push_back(i);
    const std::string name = ToString(options.scorers[i]);
    sums_[MixedSum(name)].assign(config.num_layers * config.num_kv_heads * kCurvePoints, 0.0);
    sums_[MapSum(name)].assign(config.num_layers * config.num_key_groups() * 2 * kLossMapPoints,
                               0.0);
  }
}

std::vector<Tensor> MixedCollector::LatentTiers(int64_t layer,
                                                const Window& window,
                                                const LayerBases& bases) const {
  std::vector<Tensor> keys;
  if (!window.latents.defined()) return keys;
  for (size_t t = 1; t < tiers_.size(); ++t) {
    const Tier& tier = tiers_[t];
    Tensor latents = window.latents.clone();  // [n, T, max_n R_n]
    for (int64_t n = 0; n < latents.size(0); ++n) {
      const int64_t rank = config_.key_width(layer, n);
      const int64_t kept = TierWidth(rank, tier.key_share);
      if (kept == rank && !tier.key_format) continue;
      if (bases.key_width == 0) {
        latents[n].narrow(1, kept, latents.size(2) - kept).zero_();
        continue;
      }
      const int64_t head = n * config_.num_kv_heads / latents.size(0);  // the first of the latent
      const auto basis = HeadBasis(bases.key, bases.query, bases.key_mean, n, bases.key_width);
      latents[n].copy_(
          Approximate(latents[n], basis,
                      {kept, tier.key_format, StepsFor(KeySteps, bases, tier.key_format, head)}));
    }
    keys.push_back(profile::KeysOfLatents(config_, weights_, layer, latents, window.first));
  }
  return keys;
}

void MixedCollector::Visit(int64_t layer,
                           const model::LayerTaps& taps,
                           const model::LayerWeights& weights,
                           const Tensor& energy,
                           const Tensor& output_grams,
                           const WindowScores& scores) {
  if (scorers_.empty()) return;
  const torch::NoGradGuard no_grad;
  grams_ = output_grams;
  Window window;
  window.context = taps.k.size(2) - options_.horizon;
  window.seen = taps.window;
  const int64_t begin = window.context - options_.window;
  window.queries =
      taps.q[0].narrow(1, begin, options_.window + options_.horizon).clone().contiguous();
  window.keys = taps.k[0].contiguous();
  window.values = taps.v[0].contiguous();
  if (config_.keys.layout == KeyLayout::kLatent) {
    window.first = taps.input.size(1) - taps.k.size(2);
    window.latents = LatentRows(config_, weights, layer, taps.input)
                         .narrow(1, window.first, taps.k.size(2))
                         .contiguous();
    weights_ = model::LayerWeights();  // what keys are rebuilt with
    weights_.k_rebuild = weights.k_rebuild;
    weights_.k_bias = weights.k_bias;
    weights_.k_norm = weights.k_norm;
  }
  window.weight = EnergyWeights(energy.narrow(0, window.context, options_.horizon));
  window.residual_energy = energy.narrow(0, begin, options_.window).mean().item<double>();
  for (const size_t i : scorers_) window.scores.push_back(scores[i]);
  windows_.push_back(std::move(window));
}

std::vector<TierTensors> MixedCollector::TiersOf(int64_t layer,
                                                 const Window& window,
                                                 std::span<const Tensor> latent_keys,
                                                 const LayerBases& bases,
                                                 int64_t kv_head) const {
  const Tensor keys = window.keys[kv_head].narrow(0, 0, window.context);      // [C, D_k]
  const Tensor values = window.values[kv_head].narrow(0, 0, window.context);  // [C, D_v]
  const int64_t group = kv_head * config_.num_key_groups() / config_.num_kv_heads;
  std::vector<TierTensors> tiers = {{keys, values}};
  for (size_t t = 1; t < tiers_.size(); ++t) {
    TierTensors tier = tiers.front();
    const int64_t kept = TierWidth(config_.key_width(layer, group), tiers_[t].key_share);
    if (!latent_keys.empty()) {
      tier.keys = latent_keys[t - 1][kv_head].narrow(0, 0, window.context);
    } else if (tiers_[t].key_share < 1.0 || tiers_[t].key_format) {
      const auto basis =
          HeadBasis(bases.key, bases.query, bases.key_mean, kv_head, bases.key_width);
      tier.keys = Approximate(
          keys, basis,
          {kept, tiers_[t].key_format, StepsFor(KeySteps, bases, tiers_[t].key_format, kv_head)});
    }
    if (tiers_[t].value_share < 1.0 || tiers_[t].value_format) {
      const auto basis =
          HeadBasis(bases.value, bases.output, bases.value_mean, kv_head, bases.value_width);
      tier.values =
          Approximate(values, basis,
                      {TierWidth(bases.value_width, tiers_[t].value_share), tiers_[t].value_format,
                       StepsFor(ValueSteps, bases, tiers_[t].value_format, kv_head)});
    }
    tiers.push_back(std::move(tier));
  }
  return tiers;
}

std::vector<double> MixedCollector::Losses(const Window& window,
                                           std::span<const std::vector<TierTensors>> tiers,
                                           int64_t first_head,
                                           const ScorerSpec& scorer) const {
  const int64_t columns = std::ssize(tiers_);
  const int64_t share = config_.group_size();
  const int64_t width = config_.head_width;
  std::vector<double> sum(window.context * columns, 0.0);
  std::vector<double> losses(sum.size());
  for (int64_t i = 0; i < std::ssize(tiers); ++i) {
    const int64_t head = first_head + i;
    scorers::HeadInput input;
    input.keys = View(tiers[i].front().keys);
    input.values = View(tiers[i].front().values);
    for (int64_t h = head * share; h < (head + 1) * share; ++h) {
      input.queries.push_back(View(window.queries[h]).RowRange(0, options_.window));
      input.output_grams.emplace_back(grams_.data_ptr<float>() + h * width * width, width, width);
    }
    input.residual_energy = window.residual_energy;
    input.scale = config_.logit_scale();
    input.sinks = options_.sinks;
    std::vector<scorers::TierRows> rows;
    for (size_t t = 1; t < tiers[i].size(); ++t) {
      rows.push_back({View(tiers[i][t].keys), View(tiers[i][t].values)});
    }
    scorers::TierLosses(input, rows, scorers::TierLossOptionsOf(scorer),
                        MatrixD(losses.data(), window.context, columns));
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += losses[j];
  }
  return sum;
}

std::vector<double> MixedCollector::Curves(int64_t layer,
                                           const Window& window,
                                           const LayerBases& bases) const {
  const int64_t heads = config_.num_kv_heads;
  const int64_t group_heads = heads / config_.num_key_groups();
  std::vector<double> curves(std::ssize(scorers_) * heads * kCurvePoints, 0.0);
  const std::vector<Tensor> latent_keys = LatentTiers(layer, window, bases);
  for (int64_t n = 0; n < config_.num_key_groups(); ++n) {
    std::vector<std::vector<TierTensors>> tiers;
    std::vector<TieredError> errors;
    for (int64_t g = n * group_heads; g < (n + 1) * group_heads; ++g) {
      tiers.push_back(TiersOf(layer, window, latent_keys, bases, g));
      errors.push_back(ErrorOf(window, tiers.back(), g));
    }
    for (size_t s = 0; s < scorers_.size(); ++s) {
      const ScorerSpec& scorer = options_.scorers[scorers_[s]];
      std::vector<double> losses = Losses(window, tiers, n * group_heads, scorer);
      const LossMapView map(bases.loss_maps.at(scorer), n);
      const auto choices =
          Choices(layer, bases, n, window.context, window.scores[s][n], map, losses);
      for (int64_t i = 0; i < group_heads; ++i) {
        const int64_t g = n * group_heads + i;
        const auto curve = std::span(curves).subspan(
            (static_cast<int64_t>(s) * heads + g) * kCurvePoints, kCurvePoints);
        for (size_t point = 0; point + 1 < choices.size(); ++point) {
          curve[point] = errors[i].Measure(choices[point]);
        }
        curve.back() = 0.0;  // exactly, where the sums would round
      }
    }
  }
  return curves;
}

std::vector<std::vector<uint8_t>> MixedCollector::Choices(int64_t layer,
                                                          const LayerBases& bases,
                                                          int64_t group,
                                                          int64_t context,
                                                          std::span<const float> scores,
                                                          const LossMapView& map,
                                                          std::vector<double>& losses) const {
  const int64_t columns = std::ssize(tiers_);
  const int64_t count = context - options_.window - options_.sinks;  // n
  const MatrixD shares(losses.data() + options_.sinks * columns, count, columns);
  scorers::ScaleToScores(scores.subspan(options_.sinks, count), map, shares);
  CacheGroup rows{config_.key_width(layer, group), config_.head_width, {}, false};
  rows.heads.resize(static_cast<size_t>(config_.num_kv_heads / config_.num_key_groups()));
  std::iota(rows.heads.begin(), rows.heads.end(), group * std::ssize(rows.heads));
  CacheGeometry geometry;  // of the cache that --dtype auto makes
  geometry.key_format = RowFormatOf(config_.dtype.value_or(DType::kF32));
  geometry.value_format = geometry.key_format;
  const std::vector<int64_t> costs = TierCosts(geometry, rows, tiers_, &bases);
  const solver::TierChoice rule({shares, costs, {}, {}});
  std::vector<std::vector<uint8_t>> choices;
  for (int64_t point = 0; point < kCurveIntervals; ++point) {
    choices.push_back(rule.Within(point * count * costs[0] / kCurveIntervals));
  }
  // Everything fits, including tokens that no query of the window asks for.
  choices.emplace_back(count, uint8_t{1});
  return choices;
}

HeadWindow MixedCollector::HorizonOf(const Window& window, int64_t kv_head) const {
  const int64_t share = config_.group_size();
  return {
      window.queries.narrow(0, kv_head * share, share).narrow(1, options_.window, options_.horizon),
      window.keys[kv_head],
      window.values[kv_head],
      grams_.narrow(0, kv_head * share, share),
      window.weight,
      config_.logit_scale(),
      window.seen};
}

TieredError MixedCollector::ErrorOf(const Window& window,
                                    const std::vector<TierTensors>& tiers,
                                    int64_t kv_head) const {
  const int64_t count = window.context - options_.window - options_.sinks;
  std::vector<TierTensors> evictable;
  evictable.reserve(tiers.size());
  for (const TierTensors& tier : tiers) {
    evictable.push_back(
        {tier.keys.narrow(0, options_.sinks, count), tier.values.narrow(0, options_.sinks, count)});
  }
  return {HorizonOf(window, kv_head), options_.sinks, evictable};
}

void MixedCollector::OverWindows(const std::function<void(int64_t)>& work) const {
  // Operations are single-threaded: split over threads their sums would round differently.
  const model::SingleThreadedOperations single;
  const auto count = static_cast<int64_t>(windows_.size());
  const auto workers = static_cast<int>(std::clamp<int64_t>(count, 1, single.outer_threads()));
  const auto measure = [&](int64_t w) {
    const torch::NoGradGuard no_grad;
    work(w);
  };
  model::RunOrdered(count, workers, measure, [](int64_t) {});
}

std::vector<double> MixedCollector::GroupDropLosses(const Window& window, int64_t group) const {
  const int64_t group_heads = config_.num_kv_heads / config_.num_key_groups();
  Tensor sum = torch::zeros({window.context}, torch::kFloat64);
  for (int64_t g = group * group_heads; g < (group + 1) * group_heads; ++g) {
    sum += DropLosses(HorizonOf(window, g)).narrow(0, 0, window.context);
  }
  return {sum.data_ptr<double>(), sum.data_ptr<double>() + sum.numel()};
}

std::vector<std::string> MixedCollector::ScoredTokens() const {
  const int64_t groups = config_.num_key_groups();
  std::vector<std::string> tokens(windows_.size());
  OverWindows([&](int64_t w) {
    for (int64_t n = 0; n < groups; ++n) tokens[w] += ToBytes(GroupDropLosses(windows_[w], n));
    for (size_t s = 0; s < scorers_.size(); ++s) {
      for (int64_t n = 0; n < groups; ++n) tokens[w] += ToBytes(windows_[w].scores[s][n]);
    }
  });
  return tokens;
}

LossMapPointsOfGroup MixedCollector::FitMap(const std::vector<std::string>& windows,
                                            int64_t group,
                                            int64_t scorer) const {
  const int64_t groups = config_.num_key_groups();
  std::vector<ScoredLoss> tokens;
  for (const std::string& window : windows) {
    const int64_t context =
        std::ssize(window) /
        (groups * static_cast<int64_t>(sizeof(double) + scorers_.size() * sizeof(float)));
    std::string_view losses = window, scores = window;
    losses.remove_prefix(group * context * sizeof(double));
    scores.remove_prefix(groups * context * sizeof(double) +
                         (scorer * groups + group) * context * sizeof(float));
    const auto loss = TakeValues<double>(losses, context);
    const auto score = TakeValues<float>(scores, context);
    for (int64_t j = options_.sinks; j < context - options_.window; ++j) {
      tokens.push_back({score[j], loss[j]});
    }
  }
  return FitLossMap(std::move(tokens));
}

void MixedCollector::FitMaps(int64_t layer, int64_t num_windows) {
  const int64_t groups = config_.num_key_groups();
  const int64_t count = groups * std::ssize(scorers_);
  const std::vector<std::string> windows = ranks_.AllGatherParts(ScoredTokens(), num_windows);
  std::vector<std::string> fitted;
  for (const int64_t i : ranks_.PartsOf(count)) {
    const LossMapPointsOfGroup map = FitMap(windows, i % groups, i / groups);
    fitted.push_back(ToBytes(map.scores) + ToBytes(map.losses));
  }
  const std::vector<std::string> maps = ranks_.AllGatherParts(fitted, count);
  for (int64_t i = 0; i < count; ++i) {
    std::vector<double>& sum = sums_.at(MapSum(ToString(options_.scorers[scorers_[i / groups]])));
    std::ranges::copy(FromBytes<float>(maps[i]),
                      sum.begin() + (layer * groups + i % groups) * 2 * kLossMapPoints);
  }
}

LossMapsByScorer MixedCollector::MapsOf(int64_t layer) const {
  const int64_t groups = config_.num_key_groups();
  LossMapsByScorer maps;
  for (const size_t s : scorers_) {
    const ScorerSpec& scorer = options_.scorers[s];
    const std::vector<double>& sum = sums_.at(MapSum(ToString(scorer)));
    for (int64_t n = layer * groups; n < (layer + 1) * groups; ++n) {
      const auto at = sum.begin() + n * 2 * kLossMapPoints;
      LossMaps& own = maps[scorer];
      own.scores.insert(own.scores.end(), at, at + kLossMapPoints);
      own.losses.insert(own.losses.end(), at + kLossMapPoints, at + 2 * kLossMapPoints);
    }
  }
  return maps;
}

void MixedCollector::Finish(int64_t layer, LayerBases& bases) {
  const int64_t num_windows = ranks_.Total(std::ssize(windows_));
  if (num_windows > 0) FitMaps(layer, num_windows);
  bases.loss_maps = MapsOf(layer);
  if (num_windows == 0) return;
  std::vector<std::vector<double>> curves(windows_.size());
  const int64_t size = config_.num_kv_heads * kCurvePoints;  // of a layer
  OverWindows([&](int64_t w) { curves[w] = Curves(layer, windows_[w], bases); });
  OrderedSum<double> total(ranks_, num_windows, std::ssize(scorers_) * size);
  for (const std::vector<double>& curve : curves) total.Add(curve);
  const std::vector<double> added = total.Finish();
  for (int64_t s = 0; s < std::ssize(scorers_); ++s) {
    std::vector<double>& sum = sums_.at(MixedSum(ToString(options_.scorers[scorers_[s]])));
    std::copy_n(added.begin() + s * size, size, sum.begin() + layer * size);
  }
  windows_.clear();
}

}  // namespace kvc::profile
