#include "profile/basis_grams.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>
#include <torch/autograd.h>

#include "core/base/rng.h"
#include "model/projections.h"
#include "model/streamed.h"
#include "profile/output_error.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr int64_t kSinks = 2;
constexpr int64_t kLength = 19;
constexpr int64_t kHorizon = 5;
constexpr int64_t kWindows = 3;

std::vector<std::vector<int32_t>> RandomWindows() {
  Rng rng(11);
  std::vector<std::vector<int32_t>> windows(kWindows);
  for (auto& window : windows) {
    for (int64_t t = 0; t < kLength; ++t) {
      window.push_back(static_cast<int32_t>(rng.NextBelow(96)));
    }
  }
  return windows;
}

// Mean over the rows of x [n, W], or over the products of their elements a and b, one by one.
double SlowMean(const Tensor& x, int64_t a) {
  double sum = 0.0;
  for (int64_t i = 0; i < x.size(0); ++i) sum += x[i][a].item<double>();
  return sum / static_cast<double>(x.size(0));
}
double SlowMoment(const Tensor& x, int64_t a, int64_t b, bool centred) {
  const double mean_a = centred ? SlowMean(x, a) : 0.0;
  const double mean_b = centred ? SlowMean(x, b) : 0.0;
  double sum = 0.0;
  for (int64_t i = 0; i < x.size(0); ++i) {
    sum += (x[i][a].item<double>() - mean_a) * (x[i][b].item<double>() - mean_b);
  }
  return sum / static_cast<double>(x.size(0));
}

// Elements on and off the diagonal, first and last.
std::vector<std::pair<int64_t, int64_t>> Places(int64_t width) {
  return {{0, 0}, {width - 1, width - 1}, {0, width - 1}, {width / 2, width / 2 - 1}};
}

// What errors of one kv head's rows cost in one window, by loops over queries and tokens.
struct SlowMetrics {
  Tensor key;    // [D_k, D_k]
  Tensor value;  // [D_v, D_v]
};
SlowMetrics MetricsOf(const ModelConfig& config,
                      const model::LayerTaps& taps,
                      const Tensor& energy,
                      const Tensor& o,
                      int64_t head) {
  const int64_t share = config.group_size();
  const int64_t width = config.head_width;
  const Tensor keys = taps.k[0][head].to(torch::kFloat64);
  const Tensor values = taps.v[0][head].to(torch::kFloat64);
  SlowMetrics metrics = {torch::zeros({keys.size(1), keys.size(1)}, torch::kFloat64),
                         torch::zeros({width, width}, torch::kFloat64)};
  for (int64_t h = head * share; h < (head + 1) * share; ++h) {
    const Tensor out = o.narrow(1, h * width, width).to(torch::kFloat64);  // [E, D_v]
    for (int64_t i = kLength - kHorizon; i < kLength; ++i) {
      const Tensor q = taps.q[0][h][i].to(torch::kFloat64);
      const int64_t first = taps.window ? std::max<int64_t>(0, i + 1 - *taps.window) : 0;
      const Tensor logits =
          torch::mv(keys.narrow(0, first, i + 1 - first), q) * config.logit_scale();
      const Tensor a = torch::softmax(logits, 0);
      const Tensor mean = torch::mv(values.narrow(0, first, i + 1 - first).t(), a);
      const double weight = 1.0 / (energy[i].item<double>() * kHorizon);
      for (int64_t j = std::max(first, kSinks); j <= i; ++j) {
        const double aj = a[j - first].item<double>();
        const double moved = torch::mv(out, values[j] - mean).square().sum().item<double>();
        metrics.key += torch::outer(q, q) *
                       (weight * aj * aj * moved * config.logit_scale() * config.logit_scale());
        metrics.value += torch::mm(out.t(), out) * (weight * aj * aj);
      }
    }
  }
  return metrics;
}

// Calls `visit` for every window at every layer.
void VisitLayers(const Checkpoint& checkpoint, const model::LayerVisitor& visit) {
  model::StreamOptions stream;
  stream.taps.projections = true;
  NoProgress silent;
  static_cast<void>(
      model::StreamWindows(checkpoint, RandomWindows(), stream, visit, silent, "test"));
}

class EveryModel : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryModel, MatchesSlowMoments) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden(GetParam());
  const ModelConfig& config = checkpoint.config();
  ProfileSums sums;
  GramCollector collector(config, kSinks, kHorizon, sums);
  // Rows of the last kv head in layer 1 behind the sinks; queries of all its heads.
  const int64_t head = config.num_kv_heads - 1;
  std::vector<Tensor> keys, values;
  Tensor key_metric, value_metric;  // sums over windows
  const Tensor energy = torch::arange(3, 3 + kLength, torch::kFloat64);
  const int64_t width = config.head_width;
  const auto visit = [&](int64_t layer, int64_t, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
    collector.Visit(layer, taps, weights, energy,
                    OutputProjectionGrams(weights.o, config.num_heads));
    if (layer != 1) return;
    const auto rows = [&](const Tensor& x, int64_t h) {
      return x[0][h].narrow(0, kSinks, kLength - kSinks).to(torch::kFloat64);
    };
    keys.push_back(rows(taps.k, head));
    values.push_back(rows(taps.v, head));
    const SlowMetrics metrics = MetricsOf(config, taps, energy, weights.o, head);
    key_metric = key_metric.defined() ? key_metric + metrics.key : metrics.key;
    value_metric = value_metric.defined() ? value_metric + metrics.value : metrics.value;
  };
  VisitLayers(checkpoint, visit);

  const LayerGrams grams = collector.Finish(1, kWindows, kWindows * (kLength - kSinks));
  const Tensor all_values = torch::cat(values);
  for (const auto& [a, b] : Places(width)) {
    EXPECT_NEAR(grams.value_mean[head * width + a], SlowMean(all_values, a), 1e-12);
    EXPECT_NEAR(grams.value[(head * width + a) * width + b], SlowMoment(all_values, a, b, true),
                1e-12);
    const double expected = value_metric[a][b].item<double>() / kWindows;
    EXPECT_NEAR(grams.value_metric[(head * width + a) * width + b], expected,
                1e-5 * value_metric.abs().max().item<double>());
  }
  if (config.keys.layout == KeyLayout::kLatent) {
    EXPECT_EQ(grams.key_width, 0);
    EXPECT_TRUE(grams.key.empty());
    return;
  }
  const int64_t thin = keys[0].size(1);
  ASSERT_EQ(grams.key_width, thin);
  const Tensor all_keys = torch::cat(keys);
  for (const auto& [a, b] : Places(thin)) {
    EXPECT_NEAR(grams.key_mean[head * thin + a], SlowMean(all_keys, a), 1e-12);
    EXPECT_NEAR(grams.key[(head * thin + a) * thin + b], SlowMoment(all_keys, a, b, true), 1e-11);
    EXPECT_NEAR(grams.key_metric[(head * thin + a) * thin + b],
                key_metric[a][b].item<double>() / kWindows,
                1e-5 * key_metric.abs().max().item<double>());
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         EveryModel,
                         ::testing::ValuesIn(kvc::testing::GoldenNames()),
                         kvc::testing::ParameterName());

// What errors of the layer's only latent cost in one window: each key's derivative by autograd, of
// the forward pass's own functions.
Tensor LatentMetricOf(const ModelConfig& config,
                      const model::LayerWeights& weights,
                      const model::LayerTaps& taps,
                      const Tensor& energy) {
  const Tensor latents =
      torch::linear(taps.input, weights.k).detach().requires_grad_(true);  // [1, T, R]
  const int64_t width = config.head_width;
  Tensor metric = torch::zeros({latents.size(2), latents.size(2)}, torch::kFloat64);
  for (int64_t h = 0; h < config.num_heads; ++h) {
    const int64_t g = h / config.group_size();
    const Tensor values = taps.v[0][g].to(torch::kFloat64);
    const Tensor out = weights.o.narrow(1, h * width, width).to(torch::kFloat64);  // [E, D_v]
    for (int64_t i = kLength - kHorizon; i < kLength; ++i) {
      const Tensor keys = model::KeysOfLatents(config, weights, 1, latents)[0][g];  // [T, D]
      const Tensor logits =
          torch::mv(keys.narrow(0, 0, i + 1), taps.q[0][h][i]) * config.logit_scale();
      const Tensor gradient =
          torch::autograd::grad({logits.sum()}, {latents})[0][0].to(torch::kFloat64);  // [T, R]
      const Tensor a = torch::softmax(logits.detach().to(torch::kFloat64), 0);
      const Tensor mean = torch::mv(values.narrow(0, 0, i + 1).t(), a);
      const double weight = 1.0 / (energy[i].item<double>() * kHorizon);
      for (int64_t j = kSinks; j <= i; ++j) {
        const double aj = a[j].item<double>();
        const double moved = torch::mv(out, values[j] - mean).square().sum().item<double>();
        metric += torch::outer(gradient[j], gradient[j]) * (weight * aj * aj * moved);
      }
    }
  }
  return metric;
}

TEST(GramCollector, LatentsHaveTheMetricOfTheKeysTheyMake) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden("qwen3-latent");
  const ModelConfig& config = checkpoint.config();
  ASSERT_EQ(config.num_key_groups(), 1);
  ProfileSums sums;
  GramCollector collector(config, kSinks, kHorizon, sums, true);
  const Tensor energy = torch::arange(3, 3 + kLength, torch::kFloat64);
  std::vector<Tensor> latents;
  Tensor metric;
  const auto visit = [&](int64_t layer, int64_t, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
    collector.Visit(layer, taps, weights, energy,
                    OutputProjectionGrams(weights.o, config.num_heads));
    if (layer != 1) return;
    latents.push_back(torch::linear(taps.input, weights.k)[0]
                          .narrow(0, kSinks, kLength - kSinks)
                          .to(torch::kFloat64));
    const Tensor one = LatentMetricOf(config, weights, taps, energy);
    metric = metric.defined() ? metric + one : one;
  };
  VisitLayers(checkpoint, visit);
  const LayerGrams grams = collector.Finish(1, kWindows, kWindows * (kLength - kSinks));
  const Tensor all = torch::cat(latents);
  const int64_t rank = config.key_width(1, 0);
  ASSERT_EQ(grams.key_width, rank);
  ASSERT_EQ(std::ssize(grams.key_metric), rank * rank);
  for (const auto& [a, b] : Places(rank)) {
    EXPECT_NEAR(grams.key_mean[a], SlowMean(all, a), 1e-6);
    EXPECT_NEAR(grams.key[a * rank + b], SlowMoment(all, a, b, true), 1e-5);
    EXPECT_NEAR(grams.key_metric[a * rank + b], metric[a][b].item<double>() / kWindows,
                1e-4 * metric.abs().max().item<double>());
  }
}

TEST(GramCollector, RefusesNan) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  const ModelConfig& config = checkpoint.config();
  ProfileSums sums;
  GramCollector collector(config, kSinks, kHorizon, sums);
  model::LayerTaps taps;
  const int64_t width = config.head_width;
  taps.q = torch::zeros({1, config.num_heads, kLength, width});
  taps.k = torch::zeros({1, config.num_kv_heads, kLength, width});
  taps.v = torch::zeros({1, config.num_kv_heads, kLength, width});
  const Tensor grams = torch::zeros({config.num_heads, width, width});
  const Tensor energy = torch::ones({kLength}, torch::kFloat64);
  EXPECT_NO_THROW(collector.Visit(0, taps, {}, energy, grams));
  taps.k[0][0][kLength - 1][0] = std::nanf("");
  EXPECT_KVC_ERROR(collector.Visit(0, taps, {}, energy, grams), kNumeric, "key in layer 0");
}

}  // namespace
}  // namespace kvc::profile
