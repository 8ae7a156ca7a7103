#include "profile/output_error.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/cache/profile_file.h"
#include "tests/support/expect_error.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr double kScale = 0.5;
constexpr int64_t kHeads = 6, kKvHeads = 2, kWidth = 4, kModelWidth = 9, kContext = 11,
                  kTokens = 16;

struct Example {
  Tensor o;       // [E, H*D]
  Tensor hidden;  // [T, E]
  model::LayerTaps taps;
};

Example MakeExample(int64_t seed) {
  torch::manual_seed(seed);
  Example example;
  example.o = torch::randn({kModelWidth, kHeads * kWidth});
  example.hidden = torch::randn({kTokens, kModelWidth}) * 3;
  example.taps.q = torch::randn({1, kHeads, kTokens, 5}) * 2;
  example.taps.k = torch::randn({1, kKvHeads, kTokens, 5});
  example.taps.v = torch::randn({1, kKvHeads, kTokens, kWidth});
  return example;
}

// The error of one kv head when the tokens of `dropped` are gone, by the full projection in double.
double SlowError(const Example& e, int64_t kv_head, const std::vector<int64_t>& dropped) {
  const Tensor k = e.taps.k[0][kv_head].to(torch::kFloat64);
  const Tensor v = e.taps.v[0][kv_head].to(torch::kFloat64);
  const int64_t share = kHeads / kKvHeads;
  double error = 0.0;
  for (int64_t h = kv_head * share; h < (kv_head + 1) * share; ++h) {
    const Tensor w = e.o.narrow(1, h * kWidth, kWidth).to(torch::kFloat64);  // [E, D]
    for (int64_t t = kContext; t < kTokens; ++t) {
      const Tensor logits =
          torch::mv(k.narrow(0, 0, t + 1), e.taps.q[0][h][t].to(torch::kFloat64)) * kScale;
      Tensor some = logits.clone();
      for (const int64_t j : dropped) some[j] = -std::numeric_limits<double>::infinity();
      const Tensor values = v.narrow(0, 0, t + 1).t();
      const Tensor change =
          torch::mv(values, torch::softmax(some, 0)) - torch::mv(values, torch::softmax(logits, 0));
      error += torch::mv(w, change).square().sum().item<double>() /
               e.hidden[t].to(torch::kFloat64).square().sum().item<double>();
    }
  }
  return error / (kTokens - kContext);
}

TEST(HeadOutputError, EqualsSlowError) {
  const Example e = MakeExample(3);
  const std::vector<int64_t> order = {7, 2, 9, 4, 3};  // tokens 0, 1, 5, 6, 8, 10 are protected
  for (int64_t g = 0; g < kKvHeads; ++g) {
    const HeadOutputError head(e.taps, OutputProjectionGrams(e.o, kHeads), RowEnergies(e.hidden), g,
                               kContext, kScale);
    std::vector<double> curve(kCurveIntervals + 1, 0.0);
    head.AddCurve(order, curve);
    for (int64_t point = 0; point <= kCurveIntervals; ++point) {
      const auto kept =
          static_cast<int64_t>(std::floor(static_cast<double>(point * 5) / kCurveIntervals + 0.5));
      const std::vector<int64_t> dropped(order.begin() + kept, order.end());
      // Float products of width 4 to 9 against double.
      EXPECT_NEAR(curve[point], SlowError(e, g, dropped), 1e-5 * curve[0]) << "point " << point;
    }
    EXPECT_EQ(curve[kCurveIntervals], 0.0);
    EXPECT_GT(curve[0], 0.0);
  }
}

// Queries that give all of their attention to one token, which is dropped: the rest must be told
// from what rounding left of 1.
TEST(HeadOutputError, StrongAttentionEqualsSlowError) {
  for (const double strength : {3.0, 30.0, 3000.0}) {
    Example e = MakeExample(6);
    e.taps.k[0][0][2] = e.taps.q[0][0][kContext + 1] * strength;
    e.taps.k[0][0][9] = e.taps.q[0][1][kContext + 3] * strength;
    const std::vector<int64_t> order = {7, 2, 9, 4, 3};
    const HeadOutputError head(e.taps, OutputProjectionGrams(e.o, kHeads), RowEnergies(e.hidden), 0,
                               kContext, kScale);
    std::vector<double> curve(kCurveIntervals + 1, 0.0);
    head.AddCurve(order, curve);
    const double nothing = SlowError(e, 0, order);
    EXPECT_NEAR(curve[0], nothing, 1e-3 * nothing) << strength;
  }
}

TEST(HeadOutputError, RowsOfZerosWeighNothing) {
  Example e = MakeExample(7);
  e.hidden[kContext + 1].zero_();
  const HeadOutputError head(e.taps, OutputProjectionGrams(e.o, kHeads), RowEnergies(e.hidden), 0,
                             kContext, kScale);
  std::vector<double> curve(kCurveIntervals + 1, 0.0);
  head.AddCurve(std::vector<int64_t>{3, 4}, curve);
  EXPECT_GT(curve[0], 0.0);
}

TEST(HeadOutputError, AddsToTheCurve) {
  const Example e = MakeExample(4);
  const HeadOutputError head(e.taps, OutputProjectionGrams(e.o, kHeads), RowEnergies(e.hidden), 1,
                             kContext, kScale);
  std::vector<double> once(kCurveIntervals + 1, 0.0);
  std::vector<double> onto(kCurveIntervals + 1, 10.0);
  head.AddCurve(std::vector<int64_t>{5}, once);
  head.AddCurve(std::vector<int64_t>{5}, onto);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_DOUBLE_EQ(onto[i], 10.0 + once[i]);
  head.AddCurve({}, once);  // nothing to rank, nothing lost
  EXPECT_DOUBLE_EQ(once[0] + 10.0, onto[0]);
}

TEST(HeadOutputError, RefusesNan) {
  Example e = MakeExample(5);
  e.taps.v[0][0][3][1] = std::nan("");
  const HeadOutputError head(e.taps, OutputProjectionGrams(e.o, kHeads), RowEnergies(e.hidden), 0,
                             kContext, kScale);
  std::vector<double> curve(kCurveIntervals + 1, 0.0);
  EXPECT_KVC_ERROR(head.AddCurve(std::vector<int64_t>{3, 4}, curve), kNumeric, "output error");
}

}  // namespace
}  // namespace kvc::profile
