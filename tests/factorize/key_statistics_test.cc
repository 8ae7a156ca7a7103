// Statistics of calibration against loops in double over what a layer does to one window.

#include <algorithm>
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/key_collector.h"
#include "factorize/rank_cost.h"
#include "model/streamed.h"
#include "tests/support/paths.h"

namespace kvc::factorize {
namespace {

const std::filesystem::path kModels = kvc::testing::SourceRoot() / "tests/golden/models";
constexpr int64_t kTokens = 70;  // two queries are turned back: 31 and 63
constexpr int64_t kLayer = 1;

struct StatisticsCase {
  const char* model;
  ErrorWeights weights;
};

// One layer's taps and weights in double, and what the collector makes of them.
class KeyStatisticsTest : public ::testing::TestWithParam<StatisticsCase> {
 protected:
  KeyStatisticsTest()
      : source_(Checkpoint::Open(kModels / GetParam().model)), config_(source_.config()) {
    Rng rng(11);
    std::vector<int32_t> window;
    for (int64_t t = 0; t < kTokens; ++t) {
      window.push_back(static_cast<int32_t>(rng.NextBelow(config_.vocab_size)));
    }
    model::StreamOptions stream;
    stream.taps = {/*projections=*/true, /*probabilities=*/true, /*attention=*/true};
    KeyStatisticsCollector collector(
        config_, {.num_groups = 1, .weights = GetParam().weights, .met = by_output()});
    NoProgress progress;
    const auto visit = [&](int64_t layer, int64_t, const auto& taps, const auto& weights) {
      if (layer != kLayer) return;
      collector.Add(layer, taps, weights);
      std::vector<double> sums;
      collector.TakeSums(sums);
      EXPECT_EQ(std::ssize(sums), collector.num_sums());
      EXPECT_EQ(collector.num_sums(), NumKeySums(config_, 1, GetParam().weights, by_output()));
      statistics_ = collector.Finish(layer, sums);
      const auto exact = [](const torch::Tensor& x) { return x.to(torch::kDouble).contiguous(); };
      probabilities_ = exact(taps.probabilities[0]);
      projected_ = torch::matmul(exact(taps.input[0]), exact(weights.k).t());
      q_ = exact(taps.q[0]);
      k_ = exact(taps.k[0]);
      v_ = exact(taps.v[0]);
      out_ = exact(weights.o);
    };
    (void)model::StreamWindows(source_, {window}, stream, visit, progress, "test");
  }

  [[nodiscard]] static bool by_output() { return GetParam().weights == ErrorWeights::kOutput; }
  static double At(const torch::Tensor& x, std::initializer_list<int64_t> index) {
    const double* data = x.data_ptr<double>();
    int64_t offset = 0;
    int64_t dim = 0;
    for (const int64_t i : index) offset += i * x.stride(dim++);
    return data[offset];
  }
  // |(v_t - o_i) W_O|^2 of query head h.
  [[nodiscard]] double Distance(int64_t h, int64_t i, int64_t t) const {
    const int64_t g = h / config_.group_size();
    const int64_t D = config_.head_width;
    std::vector<double> difference(D);
    for (int64_t d = 0; d < D; ++d) {
      difference[d] = At(v_, {g, t, d});
      for (int64_t s = 0; s <= i; ++s) {
        difference[d] -= At(probabilities_, {h, i, s}) * At(v_, {g, s, d});
      }
    }
    double distance = 0.0;
    for (int64_t e = 0; e < config_.model_width; ++e) {
      double moved = 0.0;
      for (int64_t d = 0; d < D; ++d) moved += difference[d] * At(out_, {e, h * D + d});
      distance += moved * moved;
    }
    return distance;
  }
  [[nodiscard]] double Weight(int64_t h, int64_t i, int64_t t) const {
    if (t > i) return 0.0;
    const double a = At(probabilities_, {h, i, t});
    return by_output() ? a * a * Distance(h, i, t) : a * (1 - a);
  }
  // w_t of kv head g.
  [[nodiscard]] std::vector<double> TokenWeights(int64_t g) const {
    std::vector<double> w(kTokens, 0.0);
    for (int64_t h = g * config_.group_size(); h < (g + 1) * config_.group_size(); ++h) {
      for (int64_t i = 0; i < kTokens; ++i) {
        for (int64_t t = 0; t <= i; ++t) w[t] += Weight(h, i, t);
      }
    }
    return w;
  }
  // Query i turned back by position t, from the angles' definition.
  [[nodiscard]] std::vector<double> TurnedBack(int64_t h, int64_t i, int64_t t) const {
    const std::vector<double> inverse = RopeInverseFrequencies(config_.rope, config_.head_width);
    std::vector<double> z(config_.head_width);
    for (int64_t d = 0; d < config_.head_width; ++d) z[d] = At(q_, {h, i, d});
    const int64_t half = config_.rotated(kLayer) ? std::ssize(inverse) : 0;
    const double factor = config_.rope.attention_factor;  // of the key's rotation
    for (int64_t j = 0; j < half; ++j) {
      const double angle = -static_cast<double>(t) * inverse[j];
      const double x = z[j];
      const double y = z[j + half];
      z[j] = factor * (x * std::cos(angle) - y * std::sin(angle));
      z[j + half] = factor * (y * std::cos(angle) + x * std::sin(angle));
    }
    return z;
  }
  static double Sum(const std::vector<double>& values) {
    double sum = 0.0;
    for (const double value : values) sum += value;
    return sum;
  }
  // Rows of float products, their sums in float over a window: a few 1e-6 of the largest entry.
  static void ExpectClose(const linalg::Matrix& actual, const linalg::Matrix& expected) {
    double largest = 0.0;
    for (const double value : expected.data) largest = std::max(largest, std::abs(value));
    ASSERT_EQ(actual.data.size(), expected.data.size());
    ASSERT_GT(largest, 0.0);
    for (size_t i = 0; i < expected.data.size(); ++i) {
      EXPECT_NEAR(actual.data[i], expected.data[i], 2e-5 * largest) << "entry " << i;
    }
  }

  Checkpoint source_;
  const ModelConfig& config_;
  KeyStatistics statistics_;
  torch::Tensor probabilities_;  // [H, T, T]
  torch::Tensor projected_;      // [T, G*D]
  torch::Tensor q_, k_, v_;      // [H or G, T, D]
  torch::Tensor out_;            // [E, H*D]
};

TEST_P(KeyStatisticsTest, WeightedMomentsEqualLoops) {
  const int64_t D = config_.head_width;
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    const std::vector<double> w = TokenWeights(g);
    const double mass = Sum(w);
    std::vector<double> mean(D, 0.0);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t d = 0; d < D; ++d) mean[d] += w[t] * At(k_, {g, t, d}) / mass;
    }
    linalg::Matrix covariance(D, D);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t d = 0; d < D; ++d) {
        for (int64_t e = 0; e < D; ++e) {
          covariance(d, e) +=
              w[t] * (At(k_, {g, t, d}) - mean[d]) * (At(k_, {g, t, e}) - mean[e]) / mass;
        }
      }
    }
    for (int64_t d = 0; d < D; ++d) {
      EXPECT_NEAR(statistics_.weighted_key_mean[g][d], mean[d], 1e-5);
    }
    ExpectClose(statistics_.weighted_key_covariance[g], covariance);
  }
}

TEST_P(KeyStatisticsTest, GramsOfProjectedKeysEqualLoops) {
  const int64_t m = config_.num_kv_heads * config_.head_width;
  linalg::Matrix together(m, m);
  double all = 0.0;
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    const std::vector<double> w = TokenWeights(g);
    linalg::Matrix gram(m, m);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < m; ++c) {
          gram(r, c) += w[t] * At(projected_, {t, r}) * At(projected_, {t, c});
        }
      }
    }
    const double mass = Sum(w);
    all += mass;
    for (size_t i = 0; i < gram.data.size(); ++i) together.data[i] += gram.data[i];
    if (!by_output()) continue;
    for (double& value : gram.data) value /= mass;
    ExpectClose(statistics_.head_gram[g], gram);
  }
  if (by_output()) return;
  for (double& value : together.data) value /= all;
  ExpectClose(statistics_.weighted_gram[0], together);
}

TEST_P(KeyStatisticsTest, MetQueriesEqualLoops) {
  if (!by_output()) return;
  const int64_t D = config_.head_width;
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    linalg::Matrix met(D, D);
    linalg::Matrix queries(D, D);
    for (int64_t h = g * config_.group_size(); h < (g + 1) * config_.group_size(); ++h) {
      for (int64_t i = 0; i < kTokens; ++i) {
        for (int64_t t = 0; t <= i; ++t) {
          const double w = Weight(h, i, t) / kTokens;
          const std::vector<double> z = TurnedBack(h, i, t);
          for (int64_t d = 0; d < D; ++d) {
            for (int64_t e = 0; e < D; ++e) {
              if (i == 31 || i == 63) met(d, e) += w * z[d] * z[e];
              queries(d, e) += w * At(q_, {h, i, d}) * At(q_, {h, i, e});
            }
          }
        }
      }
    }
    ExpectClose(statistics_.met_gram[g], met);
    ExpectClose(statistics_.weighted_query_gram[g], queries);
  }
}

INSTANTIATE_TEST_SUITE_P(Weights,
                         KeyStatisticsTest,
                         ::testing::Values(StatisticsCase{"llama", ErrorWeights::kAttention},
                                           StatisticsCase{"llama", ErrorWeights::kOutput}),
                         [](const auto& test) {
                           const bool output = test.param.weights == ErrorWeights::kOutput;
                           return output ? "output" : "attention";
                         });
// Angles that scale, a part of each head, a layer without rotation.
INSTANTIATE_TEST_SUITE_P(Rotations,
                         KeyStatisticsTest,
                         ::testing::Values(StatisticsCase{"llama-yarn", ErrorWeights::kOutput},
                                           StatisticsCase{"stablelm", ErrorWeights::kOutput},
                                           StatisticsCase{"smollm3", ErrorWeights::kOutput}),
                         [](const auto& test) {
                           std::string name = test.param.model;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(KeyStatisticsTest, QueryEnergyIsThatOfItsPair) {
  const int64_t rotary = config_.rotated(kLayer) ? config_.rotary_width() : 0;
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    for (int64_t d = 0; d < config_.head_width; ++d) {
      const int64_t partner = d < rotary ? (d + rotary / 2) % rotary : d;
      double energy = 0.0;
      for (int64_t h = g * config_.group_size(); h < (g + 1) * config_.group_size(); ++h) {
        for (int64_t t = 0; t < kTokens; ++t) {
          energy += At(q_, {h, t, d}) * At(q_, {h, t, d}) / (2 * kTokens);
          energy += At(q_, {h, t, partner}) * At(q_, {h, t, partner}) / (2 * kTokens);
        }
      }
      EXPECT_NEAR(statistics_.query_energy[g * config_.head_width + d], energy, 1e-5 * energy);
    }
  }
}

}  // namespace
}  // namespace kvc::factorize
