#include "profile/basis_grams.h"

#include <algorithm>

#include "core/base/error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

std::string SumName(int64_t layer, const char* what) {
  return "gram." + std::to_string(layer) + "." + what;
}

// x [G, n, W] -> x^T x [G, W, W]
Tensor Gram(const Tensor& x) { return torch::bmm(x.transpose(1, 2), x); }

// Returns sum / n, minus the product of means if they are given: [G, W, W].
std::vector<double> Moments(const std::vector<double>& sum,
                            const std::vector<double>* mean,
                            int64_t tokens) {
  std::vector<double> moments = sum;
  for (double& value : moments) value /= static_cast<double>(tokens);
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

int64_t WidestKey(const ModelConfig& config, int64_t layer) {
  if (config.keys.layout == KeyLayout::kLatent) return 0;
  int64_t width = 0;
  for (int64_t g = 0; g < config.num_kv_heads; ++g) {
    width = std::max(width, config.key_width(layer, g));
  }
  return width;
}

GramCollector::GramCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums)
    : config_(config), sinks_(sinks), sums_(sums) {
  const int64_t heads = config.num_kv_heads;
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const int64_t values = config.head_width;
    sums_[SumName(l, "value")].assign(heads * values * values, 0.0);
    sums_[SumName(l, "value_sum")].assign(heads * values, 0.0);
    sums_[SumName(l, "output")].assign(heads * values * values, 0.0);
    const int64_t keys = WidestKey(config, l);
    if (keys == 0) continue;
    sums_[SumName(l, "key")].assign(heads * keys * keys, 0.0);
    sums_[SumName(l, "key_sum")].assign(heads * keys, 0.0);
    sums_[SumName(l, "query")].assign(heads * keys * keys, 0.0);
  }
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

void GramCollector::Visit(int64_t layer, const model::LayerTaps& taps, const Tensor& output_grams) {
  const torch::NoGradGuard no_grad;
  const int64_t heads = config_.num_kv_heads;
  const int64_t tokens = taps.v.size(2) - sinks_;
  const auto rows = [&](const Tensor& x) {  // [1, heads, T, W] -> [heads, n, W]
    return x[0].narrow(1, sinks_, tokens).to(torch::kFloat64);
  };
  const Tensor values = rows(taps.v);
  Add(layer, "value", Gram(values));
  Add(layer, "value_sum", values.sum(1));
  // The matrix belongs to the layer, not to the window; it is added once per token, so that the
  // mean is the matrix.
  Add(layer, "output",
      output_grams.to(torch::kFloat64)
          .view({heads, config_.group_size(), values.size(2), values.size(2)})
          .sum(1)
          .mul(static_cast<double>(tokens)));
  if (config_.keys.layout == KeyLayout::kLatent) return;
  const Tensor keys = rows(taps.k);
  Add(layer, "key", Gram(keys));
  Add(layer, "key_sum", keys.sum(1));
  Add(layer, "query",
      Gram(rows(taps.q).reshape({heads, config_.group_size() * tokens, keys.size(2)})));
}

LayerGrams GramCollector::Finish(int64_t layer, int64_t tokens) const {
  LayerGrams grams;
  grams.num_kv_heads = config_.num_kv_heads;
  grams.key_width = WidestKey(config_, layer);
  grams.value_width = config_.head_width;
  const auto sum = [&](const char* what) -> const std::vector<double>& {
    return sums_.at(SumName(layer, what));
  };
  grams.value_mean = Moments(sum("value_sum"), nullptr, tokens);
  grams.value = Moments(sum("value"), &grams.value_mean, tokens);
  grams.output = Moments(sum("output"), nullptr, tokens);
  if (grams.key_width == 0) return grams;
  grams.key_mean = Moments(sum("key_sum"), nullptr, tokens);
  grams.key = Moments(sum("key"), &grams.key_mean, tokens);
  grams.query = Moments(sum("query"), nullptr, tokens);
  return grams;
}

}  // namespace kvc::profile
