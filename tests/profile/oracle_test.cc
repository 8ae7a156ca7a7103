#include "profile/oracle.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

struct Sizes {
  int64_t heads = 6, kv_heads = 2, key_width = 5, width = 4, model_width = 9;
  int64_t context = 11, horizon = 7;
};

struct Example {
  Sizes sizes;
  Tensor o;  // [E, H*D]
  model::LayerTaps taps;
};

Example MakeExample(const Sizes& sizes, int64_t seed) {
  torch::manual_seed(seed);
  const int64_t tokens = sizes.context + sizes.horizon;
  Example example;
  example.sizes = sizes;
  example.o = torch::randn({sizes.model_width, sizes.heads * sizes.width});
  example.taps.q = torch::randn({1, sizes.heads, tokens, sizes.key_width}) * 2;
  example.taps.k = torch::randn({1, sizes.kv_heads, tokens, sizes.key_width});
  example.taps.v = torch::randn({1, sizes.kv_heads, tokens, sizes.width});
  return example;
}

constexpr double kScale = 0.5;

// |v_j W_O^h| by the full product.
double Norm(const Example& e, int64_t h, int64_t j) {
  const int64_t g = h / (e.sizes.heads / e.sizes.kv_heads);
  double square = 0.0;
  for (int64_t row = 0; row < e.sizes.model_width; ++row) {
    double sum = 0.0;
    for (int64_t d = 0; d < e.sizes.width; ++d) {
      sum += e.o[row][h * e.sizes.width + d].item<double>() * e.taps.v[0][g][j][d].item<double>();
    }
    square += sum * sum;
  }
  return std::sqrt(square);
}

// Attention of the query at position `t` of head h to token j.
double Attention(const Example& e, int64_t h, int64_t t, int64_t j) {
  const int64_t g = h / (e.sizes.heads / e.sizes.kv_heads);
  double sum = 0.0;
  double own = 0.0;
  for (int64_t i = 0; i <= t; ++i) {
    double logit = 0.0;
    for (int64_t d = 0; d < e.sizes.key_width; ++d) {
      logit += e.taps.q[0][h][t][d].item<double>() * e.taps.k[0][g][i][d].item<double>();
    }
    sum += std::exp(kScale * logit);
    if (i == j) own = std::exp(kScale * logit);
  }
  return own / sum;
}

// The formula of profile/oracle.h, element by element.
double Importance(const Example& e, int64_t g, int64_t j) {
  double total = 0.0;
  for (int64_t h = 0; h < e.sizes.heads; ++h) {
    for (int64_t i = 0; i < e.sizes.context; ++i) total += Norm(e, h, i);
  }
  const int64_t share = e.sizes.heads / e.sizes.kv_heads;
  double best = 0.0;
  for (int64_t h = g * share; h < (g + 1) * share; ++h) {
    for (int64_t t = e.sizes.context; t < e.sizes.context + e.sizes.horizon; ++t) {
      best = std::max(best, Attention(e, h, t, j) * Norm(e, h, j) / total);
    }
  }
  return best;
}

void ExpectReference(const Sizes& sizes, int64_t seed) {
  const Example e = MakeExample(sizes, seed);
  const ValueNorms norms(e.o, sizes.heads, sizes.kv_heads);
  const Tensor actual = OracleImportance(e.taps, norms, sizes.context, kScale);
  ASSERT_EQ(actual.sizes(), (std::vector<int64_t>{sizes.kv_heads, sizes.context}));
  for (int64_t g = 0; g < sizes.kv_heads; ++g) {
    for (int64_t j = 0; j < sizes.context; ++j) {
      const double expected = Importance(e, g, j);
      // Products of a few dozen floats: some 1e-6 of the value.
      ASSERT_NEAR(actual[g][j].item<double>(), expected, 1e-5 * expected)
          << "g " << g << " j " << j;
    }
  }
}

TEST(OracleImportance, EqualsReference) {
  ExpectReference({}, 1);
  ExpectReference({.heads = 3, .kv_heads = 3}, 2);                   // no groups
  ExpectReference({.heads = 4, .kv_heads = 1, .horizon = 1}, 3);     // one query of the horizon
  ExpectReference({.width = 4, .model_width = 2, .context = 1}, 4);  // E < D, one token
}

TEST(ValueNorms, EqualsFullProduct) {
  const Example e = MakeExample({}, 5);
  const Tensor norms = ValueNorms(e.o, 6, 2).Of(e.taps.v[0]);
  for (int64_t h = 0; h < 6; ++h) {
    for (int64_t j = 0; j < 18; ++j) {
      EXPECT_NEAR(norms[h / 3][h % 3][j].item<double>(), Norm(e, h, j), 1e-5 * Norm(e, h, j));
    }
  }
}

TEST(OracleImportance, ZeroValuesMatterToNobody) {
  Example e = MakeExample({}, 6);
  e.taps.v = torch::zeros_like(e.taps.v);
  const Tensor importance = OracleImportance(e.taps, ValueNorms(e.o, 6, 2), 11, kScale);
  EXPECT_EQ(importance.abs().max().item<float>(), 0.0F);
}

TEST(OracleImportance, RefusesNan) {
  Example e = MakeExample({}, 7);
  e.taps.k[0][1][3][0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_KVC_ERROR(static_cast<void>(OracleImportance(e.taps, ValueNorms(e.o, 6, 2), 11, kScale)),
                   kNumeric, "oracle importance");
}

}  // namespace
}  // namespace kvc::profile
