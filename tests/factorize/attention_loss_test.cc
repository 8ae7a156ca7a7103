// The attention's error and its gradient against plain loops in double precision.

#include "factorize/attention_loss.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"

namespace kvc::factorize {
namespace {

constexpr int64_t kGroups = 2;
constexpr int64_t kShare = 2;
constexpr int64_t kHeads = kGroups * kShare;
constexpr int64_t kWidth = 4;  // of a head
constexpr int64_t kModel = 5;  // E
constexpr int64_t kValue = 4;  // D

std::vector<double> Random(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> values(count);
  // what float32 holds exactly, so that both sides see the same numbers
  for (double& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

torch::Tensor ToFloat(const std::vector<double>& values, std::vector<int64_t> shape) {
  return torch::tensor(values, torch::kFloat64).view(shape).to(torch::kFloat32);
}

struct Problem {
  int64_t tokens;
  std::optional<int64_t> window;  // of the layer
  std::vector<double> q, k, v, o, output, weight;

  explicit Problem(int64_t T, std::optional<int64_t> a_window = {})
      : tokens(T),
        window(a_window),
        q(Random(kHeads * T * kWidth, 1)),
        k(Random(kGroups * T * kWidth, 2)),
        v(Random(kGroups * T * kValue, 3)),
        o(Random(kModel * kHeads * kValue, 4)),
        output(Random(T * kModel, 5)),
        weight(Random(T, 6)) {
    for (double& w : weight) w = static_cast<float>(w * w / static_cast<double>(T));
  }

  // sum_t weight_t |sum_h sum_j a_tj v_j W_O^h - output_t|^2
  [[nodiscard]] double Error() const {
    double error = 0.0;
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<double> y(kModel, 0.0);
      for (int64_t h = 0; h < kHeads; ++h) AddHead(h, t, y);
      for (int64_t e = 0; e < kModel; ++e) {
        const double difference = y[e] - output[t * kModel + e];
        error += weight[t] * difference * difference;
      }
    }
    return error;
  }

  void AddHead(int64_t h, int64_t t, std::vector<double>& y) const {
    const int64_t g = h / kShare;
    std::vector<double> a(t + 1);
    double sum = 0.0;
    const int64_t first = window ? std::max<int64_t>(0, t - *window + 1) : 0;
    for (int64_t j = first; j <= t; ++j) {
      double dot = 0.0;
      for (int64_t d = 0; d < kWidth; ++d) {
        dot += q[(h * tokens + t) * kWidth + d] * k[(g * tokens + j) * kWidth + d];
      }
      a[j] = std::exp(dot / std::sqrt(static_cast<double>(kWidth)));
      sum += a[j];
    }
    for (int64_t j = first; j <= t; ++j) {
      for (int64_t d = 0; d < kValue; ++d) {
        const double value = a[j] / sum * v[(g * tokens + j) * kValue + d];
        for (int64_t e = 0; e < kModel; ++e) {
          y[e] += value * o[e * kHeads * kValue + h * kValue + d];
        }
      }
    }
  }

  [[nodiscard]] AttentionError Measure(bool with_gradient) const {
    ModelConfig config;
    config.num_heads = kHeads;
    config.num_kv_heads = kGroups;
    config.head_width = kWidth;
    config.model_width = kModel;
    model::Projections p;
    p.q = ToFloat(q, {1, kHeads, tokens, kWidth});
    p.k = ToFloat(k, {1, kGroups, tokens, kWidth});
    p.v = ToFloat(v, {1, kGroups, tokens, kValue});
    p.window = window;
    const AttentionTarget target{ToFloat(output, {tokens, kModel}), ToFloat(weight, {tokens})};
    return MeasureAttention(config, p, ToFloat(o, {kModel, kHeads * kValue}), target,
                            with_gradient);
  }
};

// Tokens, and the layer's window: 0 for none.
class AttentionLoss : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {
 protected:
  static Problem MakeProblem() {
    const auto [tokens, window] = GetParam();
    return Problem(tokens, window > 0 ? std::optional(window) : std::nullopt);
  }
};

// Float sums of at most 150 terms of order one: relative errors of a few 1e-6.
TEST_P(AttentionLoss, ErrorIsThatOfTheFormula) {
  const Problem problem = MakeProblem();
  const double expected = problem.Error();
  const AttentionError measured = problem.Measure(false);
  EXPECT_NEAR(measured.error, expected, 1e-5 * expected);
  EXPECT_FALSE(measured.q.defined());
}

// Central differences in double with a step of 1e-5 are good to about 1e-9.
TEST_P(AttentionLoss, GradientIsThatOfTheError) {
  Problem problem = MakeProblem();
  const AttentionError measured = problem.Measure(true);
  // A query that sees one key alone has no gradient but the rounding of floats of order one.
  const auto [tokens, window] = GetParam();
  const double least = tokens == 1 || window == 1 ? 2e-7 : 1e-8;
  const auto check = [&](std::vector<double>& values, const torch::Tensor& gradient) {
    const torch::Tensor flat = gradient.reshape({-1}).to(torch::kFloat64);
    const double scale = flat.abs().max().item<double>();
    const auto count = static_cast<int64_t>(values.size());
    ASSERT_EQ(flat.size(0), count);
    for (int64_t i = 0; i < count; i += std::max<int64_t>(1, count / 17)) {
      constexpr double kStep = 1e-5;
      const double value = values[i];
      values[i] = value + kStep;
      const double above = problem.Error();
      values[i] = value - kStep;
      const double below = problem.Error();
      values[i] = value;
      EXPECT_NEAR(flat[i].item<double>(), (above - below) / (2 * kStep), 1e-5 * scale + least) << i;
    }
  };
  check(problem.q, measured.q);
  check(problem.k, measured.k);
}

// 150 tokens cross the border of a block of queries.
INSTANTIATE_TEST_SUITE_P(Lengths,
                         AttentionLoss,
                         ::testing::Values(std::pair(1, 0),
                                           std::pair(7, 0),
                                           std::pair(150, 0),
                                           std::pair(7, 3),
                                           std::pair(150, 1),
                                           std::pair(150, 40)));

TEST(AttentionLoss, NothingIsLostAgainstItself) {
  Problem problem(33);
  for (double& value : problem.output) value = 0.0;
  // the output itself as target: what Error leaves of a zero target is |y|^2
  std::vector<double> y(kModel);
  for (int64_t t = 0; t < problem.tokens; ++t) {
    std::fill(y.begin(), y.end(), 0.0);
    for (int64_t h = 0; h < kHeads; ++h) problem.AddHead(h, t, y);
    std::copy(y.begin(), y.end(), problem.output.begin() + t * kModel);
  }
  const AttentionError measured = problem.Measure(true);
  EXPECT_LT(measured.error, 1e-10);
  EXPECT_LT(measured.q.abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace kvc::factorize
