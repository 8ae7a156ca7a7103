#include "profile/basis_grams.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "model/streamed.h"
#include "profile/output_error.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr int64_t kSinks = 2;
constexpr int64_t kLength = 19;
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

class EveryModel : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryModel, MatchesSlowMoments) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden(GetParam());
  const ModelConfig& config = checkpoint.config();
  ProfileSums sums;
  GramCollector collector(config, kSinks, sums);
  // Rows of the last kv head in layer 1 behind the sinks; queries of all its heads.
  const int64_t head = config.num_kv_heads - 1;
  std::vector<Tensor> keys, queries, values;
  Tensor output;
  const int64_t share = config.group_size();
  const int64_t width = config.head_width;
  const auto visit = [&](int64_t layer, int64_t, const model::LayerTaps& taps,
                         const model::LayerWeights& weights) {
    collector.Visit(layer, taps, OutputProjectionGrams(weights.o, config.num_heads));
    if (layer != 1) return;
    const auto rows = [&](const Tensor& x, int64_t h) {
      return x[0][h].narrow(0, kSinks, kLength - kSinks).to(torch::kFloat64);
    };
    keys.push_back(rows(taps.k, head));
    values.push_back(rows(taps.v, head));
    for (int64_t h = head * share; h < (head + 1) * share; ++h) queries.push_back(rows(taps.q, h));
    output =
        weights.o.narrow(1, head * share * width, share * width).to(torch::kFloat64);  // [E, m*D]
  };
  model::StreamOptions stream;
  stream.taps.projections = true;
  NoProgress silent;
  static_cast<void>(
      model::StreamWindows(checkpoint, RandomWindows(), stream, visit, silent, "test"));

  const LayerGrams grams = collector.Finish(1, kWindows * (kLength - kSinks));
  const Tensor all_values = torch::cat(values);
  for (const auto& [a, b] : Places(width)) {
    EXPECT_NEAR(grams.value_mean[head * width + a], SlowMean(all_values, a), 1e-12);
    EXPECT_NEAR(grams.value[(head * width + a) * width + b], SlowMoment(all_values, a, b, true),
                1e-12);
    double expected = 0.0;
    for (int64_t h = 0; h < share; ++h) {
      expected += torch::dot(output.select(1, h * width + a), output.select(1, h * width + b))
                      .item<double>();
    }
    EXPECT_NEAR(grams.output[(head * width + a) * width + b], expected,
                1e-6 * (1 + std::abs(expected)));
  }
  if (config.keys.layout == KeyLayout::kLatent) {
    EXPECT_EQ(grams.key_width, 0);
    EXPECT_TRUE(grams.key.empty());
    return;
  }
  const int64_t thin = keys[0].size(1);
  ASSERT_EQ(grams.key_width, thin);
  const Tensor all_keys = torch::cat(keys);
  const Tensor all_queries = torch::cat(queries);
  for (const auto& [a, b] : Places(thin)) {
    EXPECT_NEAR(grams.key_mean[head * thin + a], SlowMean(all_keys, a), 1e-12);
    EXPECT_NEAR(grams.key[(head * thin + a) * thin + b], SlowMoment(all_keys, a, b, true), 1e-11);
    // The sum over the group's heads, not their mean.
    EXPECT_NEAR(grams.query[(head * thin + a) * thin + b],
                SlowMoment(all_queries, a, b, false) * static_cast<double>(share), 1e-11);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         EveryModel,
                         ::testing::ValuesIn(kvc::testing::GoldenNames()),
                         kvc::testing::ParameterName());

TEST(GramCollector, RefusesNan) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  const ModelConfig& config = checkpoint.config();
  ProfileSums sums;
  GramCollector collector(config, kSinks, sums);
  model::LayerTaps taps;
  const int64_t width = config.head_width;
  taps.q = torch::zeros({1, config.num_heads, kLength, width});
  taps.k = torch::zeros({1, config.num_kv_heads, kLength, width});
  taps.v = torch::zeros({1, config.num_kv_heads, kLength, width});
  const Tensor grams = torch::zeros({config.num_heads, width, width});
  EXPECT_NO_THROW(collector.Visit(0, taps, grams));
  taps.k[0][0][kLength - 1][0] = std::nanf("");
  EXPECT_KVC_ERROR(collector.Visit(0, taps, grams), kNumeric, "key in layer 0");
}

}  // namespace
}  // namespace kvc::profile
