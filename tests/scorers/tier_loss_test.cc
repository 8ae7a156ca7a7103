// Losses of tiers against a softmax that is computed anew with the token replaced, in double.

#include "scorers/tier_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/dtype.h"
#include "tests/scorers/random_head.h"
#include "tests/support/expect_error.h"

namespace kvc::scorers {
namespace {

// Rows near those of a head, as a tier leaves them.
struct Replaced {
  std::vector<float> keys, values;
  TierRows rows;
};

Replaced Replace(const RandomHead& head, uint64_t seed, float key_noise, float value_noise) {
  Rng rng(seed);
  Replaced replaced{head.keys, head.values, {}};
  for (float& x : replaced.keys) x += key_noise * static_cast<float>(rng.NextNormal());
  for (float& x : replaced.values) x += value_noise * static_cast<float>(rng.NextNormal());
  const ConstMatrixF keys = head.input.keys;
  const ConstMatrixF values = head.input.values;
  replaced.rows.keys = {replaced.keys.data(), keys.rows, keys.cols};
  replaced.rows.values = {replaced.values.data(), values.rows, values.cols};
  return replaced;
}

struct Softened {
  std::vector<double> output;
  std::vector<double> attention;
};

// Attention over the first `visible` tokens; `without` is left out.
Softened Attend(const reference::Rows& keys,
                const reference::Rows& values,
                const std::vector<double>& query,
                double scale,
                size_t visible,
                size_t without) {
  std::vector<double> logits;
  for (size_t j = 0; j < visible; ++j) {
    logits.push_back(j == without ? -1e300 : scale * reference::Dot(query, keys[j]));
  }
  Softened result{std::vector<double>(values.front().size(), 0.0), {}};
  result.attention = reference::Softmax(logits);
  if (visible == 1 && without == 0) result.attention = {0.0};  // alone: an output of zero
  for (size_t j = 0; j < visible; ++j) {
    for (size_t d = 0; d < result.output.size(); ++d) {
      result.output[d] += result.attention[j] * values[j][d];
    }
  }
  return result;
}

double SquareBehind(const reference::Rows& projection, const std::vector<double>& change) {
  double sum = 0.0;
  for (const auto& row : projection) sum += std::pow(reference::Dot(row, change), 2);
  return sum;
}

// [T][1 + n], reduced over queries and heads, not relative.
reference::Rows Expected(const RandomHead& head,
                         const std::vector<const Replaced*>& tiers,
                         const TierLossOptions& options) {
  const auto keys = ToRows(head.input.keys);
  const auto values = ToRows(head.input.values);
  const size_t window = std::min<size_t>(head.input.queries[0].rows, keys.size());
  reference::Rows losses(keys.size(), std::vector<double>(1 + tiers.size(), 0.0));
  for (size_t h = 0; h < head.input.queries.size(); ++h) {
    const auto queries = ToRows(head.input.queries[h]);
    const int64_t width = head.input.values.cols;
    const auto& p = head.projections[h];
    const auto projection = ToRows(ConstMatrixF(p.data(), std::ssize(p) / width, width));
    for (size_t i = 0; i < window; ++i) {
      const auto& query = queries[queries.size() - window + i];
      const size_t visible = keys.size() - window + i + 1;
      const double scale = head.input.scale;
      const Softened all = Attend(keys, values, query, scale, visible, visible);
      for (size_t j = 0; j < visible; ++j) {
        for (size_t t = 0; t <= tiers.size(); ++t) {
          std::vector<double> change(values[0].size());
          if (t > 0 && options.first_order) {
            const auto key = ToRows(tiers[t - 1]->rows.keys)[j];
            const auto value = ToRows(tiers[t - 1]->rows.values)[j];
            const double eps =
                scale * (reference::Dot(query, key) - reference::Dot(query, keys[j]));
            for (size_t d = 0; d < change.size(); ++d) {
              change[d] = all.attention[j] *
                          (value[d] - values[j][d] + eps * (values[j][d] - all.output[d]));
            }
          } else {
            auto new_keys = keys;
            auto new_values = values;
            if (t > 0) {
              new_keys[j] = ToRows(tiers[t - 1]->rows.keys)[j];
              new_values[j] = ToRows(tiers[t - 1]->rows.values)[j];
            }
            const Softened now =
                Attend(new_keys, new_values, query, scale, visible, t == 0 ? j : visible);
            for (size_t d = 0; d < change.size(); ++d) change[d] = now.output[d] - all.output[d];
          }
          const double loss = SquareBehind(projection, change);
          losses[j][t] = options.mean ? losses[j][t] + loss : std::max(losses[j][t], loss);
        }
      }
    }
  }
  for (auto& row : losses) {
    for (double& loss : row) {
      if (options.mean) loss /= static_cast<double>(window * head.input.queries.size());
      if (options.relative) loss /= head.input.residual_energy;
    }
  }
  return losses;
}

std::vector<double> LossesOf(const RandomHead& head,
                             const std::vector<const Replaced*>& tiers,
                             const TierLossOptions& options) {
  std::vector<TierRows> rows;
  for (const Replaced* tier : tiers) rows.push_back(tier->rows);
  const auto cols = static_cast<int64_t>(1 + tiers.size());
  std::vector<double> losses(static_cast<size_t>(head.input.keys.rows * cols), -77.0);
  TierLosses(head.input, rows, options, {losses.data(), head.input.keys.rows, cols});
  return losses;
}

// The expanded squares subtract numbers of the size of |v|^2 + |o|^2, where the largest loss is a
// good part of them: some 10 D eps of it.
void ExpectClose(const std::vector<double>& actual, const reference::Rows& expected) {
  double largest = 0.0;
  for (const auto& row : expected) {
    for (const double loss : row) largest = std::max(largest, loss);
  }
  const size_t cols = expected.front().size();
  for (size_t j = 0; j < expected.size(); ++j) {
    for (size_t t = 0; t < cols; ++t) {
      ASSERT_NEAR(actual[j * cols + t], expected[j][t], 10 * 24 * 6e-8 * largest)
          << "token " << j << " column " << t;
    }
  }
}

TEST(TierLosses, EqualReference) {
  uint64_t seed = 100;
  for (const int64_t tokens : {1, 2, 7, 33}) {
    for (const int64_t window : {1, 5, 40}) {
      for (const int64_t heads : {1, 3}) {
        const RandomHead head =
            MakeRandomHead(++seed, {.tokens = tokens, .heads = heads, .window = window});
        const Replaced near = Replace(head, seed + 500, 0.05F, 0.1F);
        const Replaced far = Replace(head, seed + 700, 0.6F, 0.8F);
        SCOPED_TRACE(testing::Message() << "seed " << seed << " T " << tokens << " W " << window);
        ExpectClose(LossesOf(head, {&near, &far}, {}), Expected(head, {&near, &far}, {}));
      }
    }
  }
}

TEST(TierLosses, OptionsEqualReference) {
  const RandomHead head = MakeRandomHead(150, {.tokens = 30});
  const Replaced tier = Replace(head, 151, 0.3F, 0.4F);
  for (const TierLossOptions& options :
       {TierLossOptions{.first_order = true}, TierLossOptions{.mean = false},
        TierLossOptions{.first_order = true, .mean = false, .relative = false}}) {
    ExpectClose(LossesOf(head, {&tier}, options), Expected(head, {&tier}, options));
  }
}

TEST(TierLosses, DominantTokens) {
  RandomHead head = MakeRandomHead(160, {.tokens = 30, .rope = false});
  for (const float strength : {1.0F, 4.0F, 20.0F}) {
    for (int64_t d = 0; d < 16; ++d) {
      head.keys[9 * 16 + d] = strength * head.queries[1][3 * 16 + d];
    }
    SCOPED_TRACE(testing::Message() << "strength " << strength);
    const Replaced tier = Replace(head, 161, 0.3F, 0.3F);
    ExpectClose(LossesOf(head, {&tier}, {}), Expected(head, {&tier}, {}));
    ExpectClose(LossesOf(head, {&tier}, {.first_order = true}),
                Expected(head, {&tier}, {.first_order = true}));
  }
}

// Columns of zeros keep nothing of a key, which is not the same as dropping the token.
TEST(TierLosses, MissingViewsMeanUnchanged) {
  const RandomHead head = MakeRandomHead(170, {.tokens = 12});
  const Replaced tier = Replace(head, 171, 0.2F, 0.2F);
  const std::vector<TierRows> rows = {{}, {tier.rows.keys, {}}, {{}, tier.rows.values}, tier.rows};
  const std::vector<TierRows> same = {{head.input.keys, head.input.values},
                                      {tier.rows.keys, head.input.values},
                                      {head.input.keys, tier.rows.values},
                                      tier.rows};
  std::vector<double> a(12 * 5);
  std::vector<double> b(12 * 5);
  TierLosses(head.input, rows, {}, {a.data(), 12, 5});
  TierLosses(head.input, same, {}, {b.data(), 12, 5});
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-12 + 1e-6 * b[i]) << i;
  for (size_t j = 0; j < 12; ++j) EXPECT_EQ(a[j * 5 + 1], 0.0);
}

// Tiers that share rows have the losses that each would have alone.
TEST(TierLosses, SharedRowsAreTheSame) {
  const RandomHead head = MakeRandomHead(172, {.tokens = 300});
  const Replaced a = Replace(head, 173, 0.2F, 0.2F);
  const Replaced b = Replace(head, 174, 0.1F, 0.4F);
  const std::vector<TierRows> rows = {
      {a.rows.keys, b.rows.values}, {b.rows.keys, a.rows.values}, {a.rows.keys, a.rows.values}};
  std::vector<double> together(300 * 4);
  TierLosses(head.input, rows, {}, {together.data(), 300, 4});
  for (size_t t = 0; t < rows.size(); ++t) {
    std::vector<double> alone(300 * 2);
    TierLosses(head.input, std::span(rows).subspan(t, 1), {}, {alone.data(), 300, 2});
    for (size_t j = 0; j < 300; ++j) {
      ASSERT_EQ(alone[j * 2], together[j * 4]);
      ASSERT_EQ(alone[j * 2 + 1], together[j * 4 + 1 + t]) << "tier " << t << " token " << j;
    }
  }
}

// Beside rows that are bf16 the others may be rounded: two digits of a loss remain, and small ones
// are small.
TEST(TierLosses, RoundedAreNearTheReference) {
  for (const int64_t tokens : {60, 256, 300}) {
    RandomHead head = MakeRandomHead(176, {.tokens = tokens, .key_width = 32, .window = 16});
    for (float& x : head.keys) x = BF16ToFloat(FloatToBF16(x));
    for (float& x : head.values) x = BF16ToFloat(FloatToBF16(x));
    const Replaced tier = Replace(head, 177, 0.2F, 0.2F);
    head.input.rounding = kernels::InputRounding::kToBF16;
    for (const bool mean : {false, true}) {
      const reference::Rows expected = Expected(head, {&tier}, {.mean = mean});
      const std::vector<double> actual = LossesOf(head, {&tier}, {.mean = mean});
      double largest = 0.0;
      for (const auto& row : expected) largest = std::max({largest, row[0], row[1]});
      for (size_t j = 0; j < expected.size(); ++j) {
        for (size_t t = 0; t < 2; ++t) {
          ASSERT_NEAR(actual[j * 2 + t], expected[j][t], 0.02 * expected[j][t] + 0.002 * largest)
              << "T " << tokens << " token " << j << " column " << t;
        }
      }
    }
  }
}

// What a large negative or positive eps would overflow to.
TEST(TierLosses, ExtremeKeysStayFinite) {
  const RandomHead head = MakeRandomHead(180, {.tokens = 20});
  Replaced tier = Replace(head, 181, 0.0F, 0.0F);
  for (float& x : tier.keys) x *= 1e4F;
  const std::vector<double> losses = LossesOf(head, {&tier}, {.mean = false});
  for (const double loss : losses) EXPECT_TRUE(std::isfinite(loss));
}

// A token with all of a query's attention, whose key a tier takes away: what the others are left
// with and what the tier leaves of it are both 0 as floats.
TEST(TierLosses, StrongAttentionStaysFinite) {
  for (const float strength : {10.0F, 1e2F, 1e3F, 1e4F}) {
    RandomHead head = MakeRandomHead(185, {.tokens = 20, .rope = false});
    for (int64_t d = 0; d < 16; ++d) head.keys[9 * 16 + d] = strength * head.queries[1][3 * 16 + d];
    Replaced tier = Replace(head, 186, 0.0F, 0.0F);
    std::fill_n(tier.keys.begin() + 9 * 16, 16, 0.0F);
    for (const bool mean : {false, true}) {
      const std::vector<double> losses = LossesOf(head, {&tier}, {.mean = mean});
      for (const double loss : losses) ASSERT_TRUE(std::isfinite(loss)) << strength;
      // The tier leaves as little of token 9 as dropping it does.
      EXPECT_GT(losses[9 * 2], 0.0);
      EXPECT_NEAR(losses[9 * 2 + 1], losses[9 * 2], 0.2 * losses[9 * 2]) << strength;
    }
  }
}

TEST(TierLosses, RefusesWhatDoesNotFit) {
  const RandomHead head = MakeRandomHead(190, {.tokens = 6});
  Replaced tier = Replace(head, 191, 0.1F, 0.1F);
  std::vector<double> losses(12);
  const std::vector<TierRows> narrow = {{tier.rows.keys.ColRange(0, 3), {}}};
  EXPECT_KVC_ERROR(TierLosses(head.input, narrow, {}, MatrixD(losses.data(), 6, 2)), kBadShape,
                   "expected keys [6, 16], got [6, 3]");
  const std::vector<TierRows> rows = {tier.rows};
  EXPECT_KVC_ERROR(TierLosses(head.input, rows, {}, MatrixD(losses.data(), 6, 1)), kBadShape,
                   "expected room for [6, 2]");
  tier.values[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_KVC_ERROR(TierLosses(head.input, rows, {.mean = false}, MatrixD(losses.data(), 6, 2)),
                   kNumeric, "token 0");
}

TEST(ScaleToScores, TakesTheShareOfTheDroppedToken) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<double> losses = {4, 1, 0, 0, 2, 3, 5, 1};
  const std::vector<float> scores = {8, 0.5F, 10, infinity};
  ScaleToScores(scores, {}, MatrixD(losses.data(), 4, 2));
  EXPECT_EQ(losses, (std::vector<double>{8, 2, 0.5, 0.5, 10, 15, infinity, infinity}));
  const std::vector<float> negative = {-1};
  EXPECT_KVC_ERROR(ScaleToScores(negative, {}, MatrixD(losses.data(), 1, 2)), kNumeric,
                   "a score that is a loss");
}

TEST(ScaleToScores, TakesTheLossOfTheMap) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<double> losses = {4, 1, 0, 0, 2, 3, 5, 1};
  const std::vector<float> scores = {8, 0, 2, infinity};
  LossMaps maps;
  maps.scores.assign(kLossMapPoints, 4);
  maps.scores[0] = 1;
  maps.losses.assign(kLossMapPoints, 5);
  maps.losses[0] = 2;
  ScaleToScores(scores, LossMapView(maps, 0), MatrixD(losses.data(), 4, 2));
  EXPECT_EQ(losses, (std::vector<double>{10, 2.5, 2, 2, 3, 4.5, infinity, infinity}));
}

// The losses of output-error without pooling are the scores themselves.
TEST(ScaleToScores, LeavesOutputErrorAsItIs) {
  const RandomHead head = MakeRandomHead(200, {.tokens = 25});
  const Replaced tier = Replace(head, 201, 0.2F, 0.3F);
  const std::vector<double> plain = LossesOf(head, {&tier}, {});
  std::vector<double> scaled = plain;
  const auto scores = ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1, .mean = true});
  ScaleToScores(scores, {}, MatrixD(scaled.data(), 25, 2));
  const double largest = *std::ranges::max_element(plain);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_NEAR(scaled[i], plain[i], 1e-4 * largest);
}

}  // namespace
}  // namespace kvc::scorers
