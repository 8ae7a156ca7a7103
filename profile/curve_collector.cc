#include "profile/curve_collector.h"

#include <utility>

#include "core/base/error.h"
#include "profile/utility_curve.h"

namespace kvc::profile {
namespace {

// Rows [begin, begin + count) of head h of x [1, heads, T, W]; the last dimension is dense.
ConstMatrixF HeadRows(const torch::Tensor& x, int64_t h, int64_t begin, int64_t count) {
  return {x.data_ptr<float>() + h * x.stride(1) + begin * x.stride(2), count, x.size(3),
          x.stride(2)};
}

// `x` with a dense last dimension.
torch::Tensor DenseRows(const torch::Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

// Row g of importance [G, context].
std::span<const float> HeadImportance(const torch::Tensor& importance, int64_t g) {
  return {importance.data_ptr<float>() + g * importance.size(1),
          static_cast<size_t>(importance.size(1))};
}

}  // namespace

std::string CurveSum(const std::string& name) { return "curve." + name; }
std::string ErrorSum(const std::string& name) { return "error." + name; }

CurveCollector::CurveCollector(const ModelConfig& config,
                               const ProfileOptions& options,
                               ProfileSums& sums)
    : config_(config), options_(options), sums_(sums) {
  const bool behind_rotation = KeysBehindRotation(config.keys.layout);
  if (config.has_rope) {
    // Those by which the model turned the whole window.
    frequencies_ =
        RopeInverseFrequencies(config.rope, config.head_width, options.context + options.horizon);
  }
  const int64_t size = config.num_layers * config.num_kv_heads * kCurvePoints;
  const auto add_sums = [&](const std::string& name) {
    sums_[CurveSum(name)].assign(size, 0.0);
    sums_[ErrorSum(name)].assign(size, 0.0);
  };
  for (const ScorerSpec& spec : options.scorers) {
    scorers_.push_back({ToString(spec), scorers::Scorer::Create(spec)});
    KVC_CHECK(!behind_rotation || !scorers_.back().scorer->needs_prompt_queries(), kUnsupported,
              "--scorer: expected one that does not turn queries to later positions, got {}; the "
              "keys are thin behind their rotation, use snapkv or another",
              scorers_.back().name);
    add_sums(scorers_.back().name);
  }
  add_sums(kOracleName);
}

std::vector<std::string> CurveCollector::SumNames() const {
  std::vector<std::string> names = {CurveSum(kOracleName), ErrorSum(kOracleName)};
  for (const auto& [name, scorer] : scorers_) {
    names.push_back(CurveSum(name));
    names.push_back(ErrorSum(name));
  }
  return names;
}

void CurveCollector::Visit(int64_t layer,
                           const model::LayerTaps& taps,
                           const model::LayerWeights& weights,
                           const torch::Tensor& energy) {
  const torch::NoGradGuard no_grad;
  if (layer != weights_layer_) {
    norms_.emplace(weights.o, config_.num_heads, config_.num_kv_heads);
    grams_ = OutputProjectionGrams(weights.o, config_.num_heads);
    weights_layer_ = layer;
  }
  View view;
  const int64_t context = taps.k.size(2) - options_.horizon;
  view.context = context;
  view.importance = OracleImportance(taps, *norms_, context, config_.logit_scale());
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    view.errors.emplace_back(taps, grams_, energy, g, context, config_.logit_scale());
  }
  view.residual_energy =
      energy.narrow(0, context - options_.window, options_.window).mean().item<double>();
  view.rows.q_pre_rope = DenseRows(taps.q_pre_rope);
  view.rows.q = DenseRows(taps.q);
  view.rows.k = DenseRows(taps.k);
  view.rows.v = DenseRows(taps.v);
  scores_.assign(scorers_.size(), {});
  const int64_t group_heads = config_.num_kv_heads / config_.num_key_groups();
  for (int64_t first = 0; first < config_.num_kv_heads; first += group_heads) {
    const HeadRange group = {layer, first, group_heads};
    const torch::Tensor joint = view.importance.narrow(0, first, group_heads).sum(0);  // [C]
    AddCurves(kOracleName, group, {joint.data_ptr<float>(), static_cast<size_t>(joint.numel())},
              view);
    for (size_t s = 0; s < scorers_.size(); ++s) {
      scores_[s].push_back(GroupScores(*scorers_[s].scorer, group, view));
      AddCurves(scorers_[s].name, group, scores_[s].back(), view);
    }
  }
}

scorers::HeadInput CurveCollector::InputOf(const View& view,
                                           int64_t kv_head,
                                           const scorers::Scorer& scorer) const {
  const int64_t context = view.context;
  const int64_t window = options_.window;
  const model::LayerTaps& rows = view.rows;
  scorers::HeadInput input;
  input.keys = HeadRows(rows.k, kv_head, 0, context);
  input.values = HeadRows(rows.v, kv_head, 0, context);
  const int64_t share = config_.group_size();
  for (int64_t h = kv_head * share; h < (kv_head + 1) * share; ++h) {
    if (scorer.needs_queries()) {
      input.queries.push_back(HeadRows(rows.q, h, context - window, window));
    }
    if (scorer.needs_prompt_queries()) {
      input.prompt_queries.push_back(HeadRows(rows.q_pre_rope, h, 0, context));
    }
    if (scorer.needs_output()) {
      const int64_t width = config_.head_width;
      input.output_grams.emplace_back(grams_.data_ptr<float>() + h * width * width, width, width);
    }
  }
  input.residual_energy = view.residual_energy;
  if (config_.rotated(weights_layer_)) {
    input.rope_frequencies = frequencies_;
    input.rotary_width = config_.rotary_width();
    input.rope_factor = config_.rope.attention_factor;
  }
  input.scale = config_.logit_scale();
  input.sinks = options_.sinks;
  input.first_position = options_.context - context;
  return input;
}

std::vector<float> CurveCollector::GroupScores(const scorers::Scorer& scorer,
                                               const HeadRange& group,
                                               const View& view) const {
  std::vector<std::vector<float>> head_scores(group.count, std::vector<float>(view.context));
  for (int64_t i = 0; i < group.count; ++i) {
    scorer.Score(InputOf(view, group.first + i, scorer), head_scores[i]);
  }
  std::vector<float> scores(view.context);
  scorers::CombineHeads(scorer, head_scores, scores);
  return scores;
}

void CurveCollector::AddCurves(const std::string& name,
                               const HeadRange& group,
                               std::span<const float> scores,
                               const View& view) {
  const std::vector<int64_t> order =
      RankTokens(scores, options_.sinks, view.context - options_.window);
  for (int64_t g = group.first; g < group.first + group.count; ++g) {
    const int64_t offset = (group.layer * config_.num_kv_heads + g) * kCurvePoints;
    AddUtilityCurve(HeadImportance(view.importance, g), order,
                    std::span(sums_[CurveSum(name)]).subspan(offset, kCurvePoints));
    view.errors[g].AddCurve(order, std::span(sums_[ErrorSum(name)]).subspan(offset, kCurvePoints));
  }
}

}  // namespace kvc::profile
