#include "profile/basis_grams.h"

#include <algorithm>

#include "core/base/error.h"
#include "model/logit_weights.h"
#include "model/projections.h"
#include "profile/latent_keys.h"
#include "profile/output_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

std::string SumName(int64_t layer, const char* what) {
  return "gram." + std::to_string(layer) + "." + what;
}

// x [G, n, W] -> x^T x [G, W, W]
Tensor Gram(const Tensor& x) { return torch::bmm(x.transpose(1, 2), x); }

// Returns sum / count, minus the product of means if they are given: [G, W, W].
std::vector<double> Moments(const std::vector<double>& sum,
                            const std::vector<double>* mean,
                            int64_t count) {
  std::vector<double> moments = sum;
  for (double& value : moments) value /= static_cast<double>(count);
  if (mean == nullptr || mean->empty()) return moments;
  const auto width = static_cast<int64_t>(sum.size() / mean->size());
  for (int64_t i = 0; i < std::ssize(moments); ++i) {
    const int64_t row = i / width;             // of all heads
    const int64_t head = row / width * width;  // its first row
    moments[i] -= (*mean)[row] * (*mean)[head + i % width];
  }
  return moments;
}

}  // namespace

int64_t WidestKey(const ModelConfig& config, int64_t layer, bool latents_in_bits) {
  if (config.keys.layout == KeyLayout::kLatent && !latents_in_bits) return 0;
  int64_t width = 0;
  for (int64_t g = 0; g < config.num_key_groups(); ++g) {
    width = std::max(width, config.key_width(layer, g));
  }
  return width;
}

GramCollector::GramCollector(const ModelConfig& config,
                             int64_t sinks,
                             int64_t horizon,
                             ProfileSums& sums,
                             bool latents_in_bits)
    : config_(config),
      sinks_(sinks),
      horizon_(horizon),
      sums_(sums),
      latents_in_bits_(latents_in_bits) {
  const int64_t heads = config.num_kv_heads;
  const int64_t groups = config.num_key_groups();
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const int64_t values = config.head_width;
    sums_[SumName(l, "value")].assign(heads * values * values, 0.0);
    sums_[SumName(l, "value_sum")].assign(heads * values, 0.0);
    sums_[SumName(l, "value_metric")].assign(heads * values * values, 0.0);
    const int64_t keys = WidestKey(config, l, latents_in_bits);
    if (keys == 0) continue;
    sums_[SumName(l, "key")].assign(groups * keys * keys, 0.0);
    sums_[SumName(l, "key_sum")].assign(groups * keys, 0.0);
    sums_[SumName(l, "key_metric")].assign(groups * keys * keys, 0.0);
  }
}

std::vector<std::string> GramCollector::SumNames(int64_t layer) const {
  std::vector<std::string> names;
  for (const char* what : {"value", "value_sum", "value_metric"}) {
    names.push_back(SumName(layer, what));
  }
  if (WidestKey(config_, layer, latents_in_bits_) == 0) return names;
  for (const char* what : {"key", "key_sum", "key_metric"}) names.push_back(SumName(layer, what));
  return names;
}

void GramCollector::Add(int64_t layer, const char* what, const Tensor& sum) {
  KVC_CHECK(torch::isfinite(sum).all().item<bool>(), kNumeric,
            "moments of the {} in layer {}: expected finite numbers, got NaN or infinity; check "
            "the weights",
            what, layer);
  std::vector<double>& target = sums_.at(SumName(layer, what));
  const Tensor dense = sum.contiguous();
  KVC_CHECK(dense.numel() == std::ssize(target), kInternal, "moments: another width");
  const double* data = dense.data_ptr<double>();
  for (size_t i = 0; i < target.size(); ++i) target[i] += data[i];
}

void GramCollector::AddMetrics(int64_t layer,
                               const model::LayerTaps& taps,
                               const model::LayerWeights& weights,
                               const Tensor& energy,
                               const Tensor& output_grams) {
  const int64_t heads = config_.num_kv_heads;
  const int64_t share = config_.group_size();
  const int64_t tokens = taps.k.size(2);
  const int64_t behind = tokens - sinks_;
  const double scale = config_.logit_scale();
  const Tensor weight = EnergyWeights(energy.narrow(0, tokens - horizon_, horizon_));  // [Q]
  std::vector<Tensor> of_keys, of_values;
  for (int64_t g = 0; g < heads; ++g) {
    const Tensor queries =
        taps.q[0].narrow(0, g * share, share).narrow(1, tokens - horizon_, horizon_);
    const Tensor grams = output_grams.narrow(0, g * share, share);     // [H/G, D_v, D_v]
    Tensor logits = torch::matmul(queries * scale, taps.k[0][g].t());  // [H/G, Q, T]
    model::HideUnseenKeys(logits, taps.window);
    const Tensor attention = torch::softmax(logits, -1);
    const Tensor values = taps.v[0][g];  // [T, D_v]
    // Sums over the tokens whose rows lose something, times the queries' weights: [H/G, Q].
    const auto over_tokens = [&](const Tensor& x) {
      return x.narrow(2, sinks_, behind).to(torch::kFloat64).sum(2) * weight;
    };
    of_values.push_back(
        (over_tokens(attention.square()).sum(1).view({share, 1, 1}) * grams.to(torch::kFloat64))
            .sum(0));
    if (WidestKey(config_, layer, latents_in_bits_) == 0) continue;
    const Tensor by_token =
        model::LogitWeights(attention, values, torch::matmul(attention, values), grams);
    if (latents_in_bits_) {
      const Tensor weighted = by_token * weight.to(torch::kFloat32).unsqueeze(1);
      of_keys.push_back(KeyMetricBeforeRotation(config_, weights, layer, taps.input, g, sinks_,
                                                {queries, weighted, scale}));
      continue;
    }
    const Tensor moved = over_tokens(by_token);
    const Tensor rows = (queries.to(torch::kFloat64) * (moved.sqrt() * scale).unsqueeze(2))
                            .reshape({share * horizon_, queries.size(2)});
    of_keys.push_back(torch::mm(rows.t(), rows));
  }
  Add(layer, "value_metric", torch::stack(of_values));
  if (of_keys.empty()) return;
  const Tensor keys = torch::stack(of_keys);
  Add(layer, "key_metric", latents_in_bits_ ? LatentMetric(config_, weights, layer, keys) : keys);
}

void GramCollector::Visit(int64_t layer,
                          const model::LayerTaps& taps,
                          const model::LayerWeights& weights,
                          const Tensor& energy,
                          const Tensor& output_grams) {
  const torch::NoGradGuard no_grad;
  const int64_t tokens = taps.v.size(2) - sinks_;
  const auto rows = [&](const Tensor& x) {  // [heads, T, W] -> [heads, n, W]
    return x.narrow(1, sinks_, tokens).to(torch::kFloat64);
  };
  const Tensor values = rows(taps.v[0]);
  Add(layer, "value", Gram(values));
  Add(layer, "value_sum", values.sum(1));
  if (WidestKey(config_, layer, latents_in_bits_) > 0) {
    const Tensor keys =
        rows(latents_in_bits_ ? LatentRows(config_, weights, layer, taps.input) : taps.k[0]);
    Add(layer, "key", Gram(keys));
    Add(layer, "key_sum", keys.sum(1));
  }
  AddMetrics(layer, taps, weights, energy, output_grams);  // behind the rows: a NaN is theirs
}

LayerGrams GramCollector::Finish(int64_t layer, int64_t windows, int64_t tokens) const {
  LayerGrams grams;
  grams.num_kv_heads = config_.num_kv_heads;
  grams.key_width = WidestKey(config_, layer, latents_in_bits_);
  grams.value_width = config_.head_width;
  const auto sum = [&](const char* what) -> const std::vector<double>& {
    return sums_.at(SumName(layer, what));
  };
  grams.value_mean = Moments(sum("value_sum"), nullptr, tokens);
  grams.value = Moments(sum("value"), &grams.value_mean, tokens);
  grams.value_metric = Moments(sum("value_metric"), nullptr, windows);
  if (grams.key_width == 0) return grams;
  grams.key_mean = Moments(sum("key_sum"), nullptr, tokens);
  grams.key = Moments(sum("key"), &grams.key_mean, tokens);
  grams.key_metric = Moments(sum("key_metric"), nullptr, windows);
  return grams;
}

}  // namespace kvc::profile
