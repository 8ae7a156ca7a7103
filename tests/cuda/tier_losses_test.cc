#include "kernels/cuda/tier_losses.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "scorers/tier_loss.h"
#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

constexpr double kUnit = 0x1p-24;

// One tier of every head; rows that it keeps unchanged are missing.
struct Tier {
  std::deque<CodedRows> keys, values;
};

// Rows with errors of the size `noise`, as a tier would hold them.
std::deque<CodedRows> Moved(Rng& rng, const std::deque<CodedRows>& rows, double noise) {
  std::deque<CodedRows> moved;
  for (const CodedRows& head : rows) {
    std::vector<float> x = head.values;
    for (float& value : x) value += static_cast<float>(noise * rng.NextNormal());
    moved.emplace_back(kRowsF32, head.rows, head.width, 0, x);
  }
  return moved;
}

// Keys and values, values alone, keys alone that move the logits a lot, and nothing.
std::vector<Tier> MakeTiers(Rng& rng, const ScoreCase& scores) {
  std::vector<Tier> tiers(4);
  tiers[0] = {Moved(rng, scores.keys, 0.1), Moved(rng, scores.values, 0.3)};
  tiers[1] = {{}, Moved(rng, scores.values, 1.0)};
  tiers[2] = {Moved(rng, scores.keys, 2.0), {}};
  return tiers;
}

// Losses [head][T, 1 + tiers] before they are scaled.
std::vector<std::vector<double>> LossesOf(ScoreCase& scores,
                                          const std::vector<Tier>& tiers,
                                          bool maximum) {
  std::vector<ScoreHead> heads = scores.Heads();
  std::deque<DeviceArray<float>> outputs;
  const auto output = [&](int32_t rows) {
    outputs.emplace_back(std::vector<float>(static_cast<size_t>(std::max(rows, 1)), -77.0F));
    return outputs.back().data();
  };
  for (ScoreHead& head : heads) {
    (maximum ? head.error_maxima : head.error_sums) = output(head.rows);
  }
  const ScorePlan plan = PlanScores(std::move(heads), true);
  std::vector<ScoreTier> table;
  for (size_t g = 0; g < plan.heads.size(); ++g) {
    for (const Tier& tier : tiers) {
      ScoreTier& entry = table.emplace_back();
      entry.head = static_cast<int32_t>(g);
      if (!tier.keys.empty()) entry.keys = tier.keys[g].view();
      if (!tier.values.empty()) entry.values = tier.values[g].view();
      entry.losses = output(plan.heads[g].rows);
    }
  }
  CheckTiers(plan, table);
  const DeviceArray<ScoreHead> device_heads(plan.heads);
  const DeviceArray<ScoreTier> device_tiers(table);
  const DeviceArray<float> scratch(static_cast<size_t>(plan.scratch_floats));
  SumScores(plan, device_heads.data(), scratch.data(), scores.scale(), nullptr);
  TierLosses(plan, device_heads.data(), scratch.data(), scores.scale(), device_tiers.data(),
             static_cast<int32_t>(table.size()), maximum, nullptr);
  const size_t columns = 1 + tiers.size();
  std::vector<std::vector<double>> losses;
  for (size_t g = 0; g < plan.heads.size(); ++g) {
    const auto rows = static_cast<size_t>(plan.heads[g].rows);
    std::vector<double>& of_head = losses.emplace_back(rows * columns);
    for (size_t t = 0; t < columns; ++t) {
      const size_t array = t == 0 ? g : plan.heads.size() + g * tiers.size() + t - 1;
      const std::vector<float> column = outputs[array].Host();
      for (size_t j = 0; j < rows; ++j) of_head[j * columns + t] = column[j];
    }
  }
  return losses;
}

// With x = v - o, y = v^ - v and the loss |c x + w y|^2 of M, rounding moves w by (4 r + 2 d) w
// and c by 4 r c + 2 w d, where r is that of attention and d that of eps, and the forms of x and y
// by (2 D + 8) u + 2 r of their magnitudes.
double LossBound(
    const ScoreCase& scores, const ScoreCase::View& view, const Tier& tier, size_t g, int64_t j) {
  const int64_t width = scores.shape().value_width;
  const float* value = scores.values[g].host().row(j);
  const bool alone = j == view.dominant && view.a[j] > 0.5;
  std::vector<double> x(static_cast<size_t>(width));
  std::vector<double> y(static_cast<size_t>(width), 0.0);
  for (int64_t d = 0; d < width; ++d) {
    x[d] = std::abs(value[d]) + (alone ? std::abs(view.others[d]) : view.o_size[d]);
    if (!tier.values.empty()) y[d] = std::abs(tier.values[g].host()(j, d) - value[d]);
  }
  double eps = 0.0;
  double size = 0.0;
  for (size_t d = 0; !tier.keys.empty() && d < view.x.size(); ++d) {
    const auto column = static_cast<int64_t>(d);
    const double moved = tier.keys[g].host()(j, column) - scores.keys[g].host()(j, column);
    eps += view.x[d] * moved * scores.scale();
    size += view.size[d] * std::abs(moved) * scores.scale();
  }
  const double off = kUnit * static_cast<double>(view.x.size() + 10) * size;
  const double a = view.a[j];
  const double rest = alone ? view.rest : 1.0 - a;
  const double sum = rest + a * std::exp(eps);
  const double w = a * std::exp(eps) / sum;
  const double c = std::abs(a * std::expm1(eps) / sum) * (alone ? rest : 1.0);
  const double r = view.rounding;
  const double dw = (4.0 * r + 2.0 * off) * w;
  const double dc = 4.0 * r * c + 2.0 * w * off * (alone ? rest : 1.0);
  const double forms = (2.0 * static_cast<double>(width) + 8.0) * kUnit + 2.0 * r;
  const double xx = FormOfSizes(x, *view.gram, x);
  const double xy = FormOfSizes(x, *view.gram, y);
  const double yy = FormOfSizes(y, *view.gram, y);
  return 2.0 * (c * dc * xx + (dc * w + c * dw) * xy + w * dw * yy) +
         forms * (c * c * xx + 2.0 * c * w * xy + w * w * yy);
}

class TierLossesTest : public testing::TestWithParam<RowFormat> {
 protected:
  Rng rng_{44};
};

const std::vector<ScoreShape> kShapes = {
    {"one token", {1}, 64, 64, 1, 1},
    {"window beyond the tokens", {5, 0, 3}, 64, 64, 3, 8},
    {"ragged widths", {100, 63}, 13, 24, 3, 8, 40, 16, false},
    {"group of 8", {70}, 16, 24, 8, 9},
    {"group of 16", {70}, 16, 24, 16, 5},
    {"wide", {66}, 128, 128, 2, 5},
    {"dominant tokens", {90, 40}, 64, 64, 3, 8, 40, 16, true, 1.5},
    {"a token alone", {90, 6, 1}, 16, 64, 1, 8, 0, 0, true, 40.0},
};

TEST_P(TierLossesTest, AgreesWithTheHost) {
  for (const ScoreShape& shape : kShapes) {
    ScoreCase scores(shape, GetParam(), rng_);
    const std::vector<Tier> tiers = MakeTiers(rng_, scores);
    for (const bool maximum : {false, true}) {
      std::vector<std::vector<double>> losses = LossesOf(scores, tiers, maximum);
      for (size_t g = 0; g < losses.size(); ++g) {
        SCOPED_TRACE(testing::Message() << shape.name << " head " << g << " " << maximum);
        const scorers::HeadInput input = scores.Input(g);
        const int64_t rows = input.keys.rows;
        const int64_t columns = 1 + std::ssize(tiers);
        std::vector<scorers::TierRows> host_tiers(tiers.size());
        for (size_t t = 0; t < tiers.size(); ++t) {
          if (!tiers[t].keys.empty()) host_tiers[t].keys = tiers[t].keys[g].host();
          if (!tiers[t].values.empty()) host_tiers[t].values = tiers[t].values[g].host();
        }
        scorers::TierLossOptions options;
        options.mean = !maximum;
        std::vector<double> want(static_cast<size_t>(rows * columns));
        scorers::TierLosses(input, host_tiers, options, {want.data(), rows, columns});
        const scorers::TokenSums counts = scores.Counts(g);
        scorers::ScaleLosses(counts, options, {losses[g].data(), rows, columns});
        double weight = 1.0 / ScoreCase::kEnergy;
        if (!maximum) weight /= static_cast<double>(counts.window * counts.heads);
        std::vector<double> bounds(want.size(), 0.0);
        const auto views = scores.Views(g);
        for (int64_t j = 0; j < rows; ++j) {
          for (int64_t t = 1; t < columns; ++t) {
            double& bound = bounds[j * columns + t];
            for (const ScoreCase::View& view : views) {
              if (!view.window || view.a[j] == 0.0) continue;
              const double own = LossBound(scores, view, tiers[t - 1], g, j);
              bound = maximum ? std::max(bound, own) : bound + own;
            }
            bound *= 2.0 * weight;
            bound += static_cast<double>(views.size()) * kUnit * want[j * columns + t] + 1e-37;
            ASSERT_LE(std::abs(losses[g][j * columns + t] - want[j * columns + t]), bound)
                << "token " << j << " tier " << t << ": " << losses[g][j * columns + t] << " for "
                << want[j * columns + t];
          }
        }
      }
    }
  }
}

TEST_P(TierLossesTest, IsDeterministic) {
  ScoreCase scores({"", {130, 64, 1}, 24, 40, 3, 8, 40, 16, true, 1.5}, GetParam(), rng_);
  const std::vector<Tier> tiers = MakeTiers(rng_, scores);
  const auto expected = LossesOf(scores, tiers, false);
  UnderOrders([&] { EXPECT_EQ(LossesOf(scores, tiers, false), expected); });
}

INSTANTIATE_TEST_SUITE_P(Formats, TierLossesTest, testing::ValuesIn(kRowFormats));

// Logits in the thousands: a dominant token leaves the others no float, and a tier moves its key
// back, or a token without attention to the front.
TEST(TierLossesTest, StrongAttentionStaysFinite) {
  Rng rng(5);
  for (const double dominance : {40.0, 400.0, 4000.0}) {
    ScoreCase scores({"", {90, 6}, 16, 64, 3, 8, 0, 0, true, dominance}, kRowsF32, rng);
    std::vector<Tier> tiers(3);
    tiers[0] = {Moved(rng, scores.keys, 2.0), {}};
    for (const CodedRows& head : scores.keys) {
      std::vector<float> x = head.values;
      for (float& value : x) value = 0.0F;
      tiers[1].keys.emplace_back(kRowsF32, head.rows, head.width, 0, x);
      for (size_t i = 0; i < x.size(); ++i) x[i] = -head.values[i];
      tiers[2].keys.emplace_back(kRowsF32, head.rows, head.width, 0, x);
    }
    for (const bool maximum : {false, true}) {
      for (const std::vector<double>& head : LossesOf(scores, tiers, maximum)) {
        for (const double loss : head) ASSERT_TRUE(std::isfinite(loss)) << dominance;
      }
    }
  }
}

TEST(TierLossesTest, BrokenNumbersReachTheHost) {
  Rng rng(3);
  for (const bool maximum : {false, true}) {
    ScoreCase scores({"", {70}, 16, 16, 2, 8}, kRowsF32, rng);
    std::vector<Tier> tiers = MakeTiers(rng, scores);
    std::vector<float> x = tiers[0].values[0].values;
    x[40 * 16 + 2] = NAN;
    tiers[0].values.clear();
    tiers[0].values.emplace_back(kRowsF32, 70, 16, 0, x);
    std::vector<double> losses = LossesOf(scores, tiers, maximum)[0];
    EXPECT_THROW(scorers::ScaleLosses(scores.Counts(0), {}, {losses.data(), 70, 5}), Error);
  }
}

TEST(TierLossesTest, RefusesOtherWidths) {
  Rng rng(3);
  ScoreCase scores({"", {70}, 16, 24, 2, 8}, kRowsF32, rng);
  const ScorePlan plan = PlanScores(scores.Heads(), true);
  float loss = 0.0F;
  ScoreTier tier;
  tier.losses = &loss;
  tier.keys = scores.keys[0].view();
  EXPECT_NO_THROW(CheckTiers(plan, {tier}));
  tier.values = scores.keys[0].view();
  EXPECT_THROW(CheckTiers(plan, {tier}), Error);
  tier.values = {};
  tier.head = 1;
  EXPECT_THROW(CheckTiers(plan, {tier}), Error);
}

}  // namespace
}  // namespace kvc::cuda
