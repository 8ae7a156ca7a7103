// The score `output-error` against a reference that leaves each token out of the softmax.

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/dtype.h"
#include "scorers/scorer.h"
#include "tests/scorers/random_head.h"
#include "tests/support/expect_error.h"

namespace kvc::scorers {
namespace {

std::vector<reference::Rows> ProjectionRows(const RandomHead& head) {
  std::vector<reference::Rows> all;
  const int64_t width = head.input.values.cols;
  for (const auto& p : head.projections) {
    all.push_back(ToRows(ConstMatrixF(p.data(), std::ssize(p) / width, width)));
  }
  return all;
}

std::vector<double> Expected(const RandomHead& head, const ScorerOptions& options) {
  return reference::OutputError(ToRows(head.input.keys), ToRows(head.input.values),
                                ToRows(head.input.queries), ProjectionRows(head),
                                {.scale = head.input.scale,
                                 .residual_energy = options.relative ? 7.5 : 1.0,
                                 .pool = options.pool == 0 ? 11 : options.pool,
                                 .mean = options.mean});
}

// The expanded square subtracts numbers of the size of |v|^2 + |o|^2, where the largest error is a
// good part of them: some 10 D eps of it.
void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  const double largest = *std::ranges::max_element(expected);
  for (size_t j = 0; j < actual.size(); ++j) {
    ASSERT_NEAR(actual[j], expected[j], 10 * 24 * 6e-8 * largest) << "token " << j;
  }
}

TEST(OutputError, EqualsReference) {
  uint64_t seed = 10;
  for (const int64_t tokens : {1, 2, 7, 12, 31, 100, 403}) {
    for (const int64_t window : {1, 5, 8, 40}) {
      for (const int64_t heads : {1, 3}) {
        const RandomHead head =
            MakeRandomHead(++seed, {.tokens = tokens, .heads = heads, .window = window});
        SCOPED_TRACE(testing::Message() << "seed " << seed << " T " << tokens << " W " << window);
        ExpectClose(ScoreOf(ScorerKind::kOutputError, head.input), Expected(head, {}));
      }
    }
  }
}

TEST(OutputError, OptionsEqualReference) {
  const RandomHead head = MakeRandomHead(50, {.tokens = 90});
  for (const ScorerOptions& options :
       {ScorerOptions{.pool = 1}, ScorerOptions{.pool = 15, .mean = true},
        ScorerOptions{.pool = 3, .relative = false}}) {
    ExpectClose(ScoreOf(ScorerKind::kOutputError, head.input, options), Expected(head, options));
  }
}

// Where a query looks at one token almost alone, a/(1-a) is huge and v - o next to nothing: their
// product still has its digits.
TEST(OutputError, DominantTokens) {
  RandomHead head = MakeRandomHead(60, {.tokens = 40, .rope = false});
  for (const float strength : {1.0F, 3.0F, 8.0F, 30.0F}) {
    for (int64_t d = 0; d < 16; ++d)
      head.keys[17 * 16 + d] = strength * head.queries[1][3 * 16 + d];
    SCOPED_TRACE(testing::Message() << "strength " << strength);
    ExpectClose(ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1}),
                Expected(head, {.pool = 1}));
  }
}

// One query 1 and W_O = 2 for tokens one dimension wide.
HeadInput OneQuery(const std::vector<float>& keys, const std::vector<float>& values) {
  static const float query = 1.0F;
  static const float gram = 4.0F;
  HeadInput input;
  input.keys = {keys.data(), std::ssize(keys), 1};
  input.values = {values.data(), std::ssize(values), 1};
  input.queries = {ConstMatrixF(&query, 1, 1)};
  input.output_grams = {ConstMatrixF(&gram, 1, 1)};
  return input;
}

// So alone that the others vanish in float: the output without the token counts as 0.
TEST(OutputError, TokenAlone) {
  RandomHead head = MakeRandomHead(61, {.tokens = 1, .heads = 1, .window = 1});
  const double alone = ScoreOf(ScorerKind::kOutputError, head.input)[0];
  const std::vector<float> far = {0.0F, 1e4F};
  const std::vector<float> values = {5.0F, 1.0F};
  const HeadInput input = OneQuery(far, values);
  EXPECT_GT(alone, 0.0);
  EXPECT_EQ(ScoreOf(ScorerKind::kOutputError, input, {.pool = 1}), (std::vector<float>{0, 4}));
}

// Two tokens, one query, attention 1/4 and 3/4, values 0 and 1, W_O = 2: without token 0 the output
// moves from 3/4 to 1, without token 1 to 0.
TEST(OutputError, HandWorked) {
  const std::vector<float> keys = {0.0F, std::log(3.0F)};
  const std::vector<float> values = {0.0F, 1.0F};
  HeadInput input = OneQuery(keys, values);
  input.residual_energy = 2.0;
  const std::vector<float> scores = ScoreOf(ScorerKind::kOutputError, input);
  EXPECT_NEAR(scores[0], 4.0 / 16.0 / 2.0, 1e-6);
  EXPECT_NEAR(scores[1], 4.0 * 9.0 / 16.0 / 2.0, 1e-6);
}

// Queries of the prompt alone, in one block and in several, some of them and all.
TEST(OutputError, PromptEqualsReference) {
  uint64_t seed = 200;
  for (const int64_t tokens : {1, 3, 12, 60, 150}) {
    for (const int64_t prompt : {1, 7, 129, 1000}) {
      const RandomHead head =
          MakeRandomHead(++seed, {.tokens = tokens, .heads = 2, .rope = prompt != 7});
      SCOPED_TRACE(testing::Message() << "T " << tokens << " prompt " << prompt);
      const std::vector<double> expected =
          reference::ExpectedError(ToRows(head.input.keys), ToRows(head.input.values),
                                   ToRows(head.input.prompt_queries), ProjectionRows(head),
                                   {.frequencies = head.frequencies,
                                    .scale = head.input.scale,
                                    .residual_energy = 7.5,
                                    .prompt = prompt,
                                    .future = 90});
      ExpectClose(ScoreOf(ScorerKind::kOutputError, head.input,
                          {.future = 90, .prompt = prompt, .recent = 0.0}),
                  expected);
    }
  }
}

// Rounds to the bf16 numbers that a cache holds.
void RoundToCache(std::vector<float>& x) {
  for (float& v : x) v = BF16ToFloat(FloatToBF16(v));
}

// Queries, attention and outputs in bf16 beside rows that are bf16: losses keep two to three digits
// of the largest, at lengths at and off the edges of blocks.
TEST(OutputError, RoundedPromptIsNearTheReference) {
  uint64_t seed = 300;
  for (const int64_t tokens : {40, 256, 300, 530}) {
    RandomHead head = MakeRandomHead(++seed, {.tokens = tokens, .key_width = 32, .window = 8});
    RoundToCache(head.keys);
    RoundToCache(head.values);
    head.input.rounding = kernels::InputRounding::kToBF16;
    const std::vector<double> expected =
        reference::ExpectedError(ToRows(head.input.keys), ToRows(head.input.values),
                                 ToRows(head.input.prompt_queries), ProjectionRows(head),
                                 {.frequencies = head.frequencies,
                                  .scale = head.input.scale,
                                  .residual_energy = 7.5,
                                  .prompt = 200,
                                  .future = 90});
    const std::vector<float> actual =
        ScoreOf(ScorerKind::kOutputError, head.input, {.future = 90, .prompt = 200, .recent = 0.0});
    const double largest = *std::ranges::max_element(expected);
    for (int64_t j = 0; j < tokens; ++j) {
      ASSERT_NEAR(actual[j], expected[j], 0.01 * expected[j] + 0.002 * largest)
          << "T " << tokens << " token " << j;
    }
    EXPECT_EQ(actual, ScoreOf(ScorerKind::kOutputError, head.input,
                              {.future = 90, .prompt = 200, .recent = 0.0}));
  }
}

// The `count` best of the tokens first .. last - 1, in ascending order.
std::vector<int64_t> Best(const std::vector<float>& scores,
                          int64_t first,
                          int64_t last,
                          int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(last - first));
  std::iota(order.begin(), order.end(), first);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(count));
  std::ranges::sort(order);
  return order;
}

// Of any number of best tokens by `mixed` `other` has chosen a quarter, `scores` the rest; sinks
// and window keep their scores.
void ExpectQuarter(const std::vector<float>& mixed,
                   const std::vector<float>& scores,
                   const std::vector<float>& other) {
  constexpr int64_t kSinks = 3;
  const int64_t last = std::ssize(mixed) - 8;  // the window is 8 queries
  for (const int64_t count : {6, 30, 90}) {
    // The union of the best and, of a third as many, the other's best.
    const std::vector<int64_t> best = Best(scores, kSinks, last, count);
    const std::vector<int64_t> others = Best(other, kSinks, last, count / 3);
    std::vector<int64_t> both;
    std::ranges::set_union(best, others, std::back_inserter(both));
    EXPECT_EQ(Best(mixed, kSinks, last, std::ssize(both)), both) << count;
  }
  for (int64_t j = 0; j < kSinks; ++j) EXPECT_EQ(mixed[j], scores[j]);
  for (int64_t j = last; j < std::ssize(mixed); ++j) EXPECT_EQ(mixed[j], scores[j]);
}

TEST(OutputError, KeyDiffTakesItsShare) {
  RandomHead head = MakeRandomHead(70, {.tokens = 300});
  head.input.sinks = 3;
  ExpectQuarter(ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1, .keydiff = 0.25}),
                ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1}),
                ScoreOf(ScorerKind::kKeyDiff, head.input));
}

TEST(OutputError, WindowTakesItsShareBesideThePrompt) {
  RandomHead head = MakeRandomHead(71, {.tokens = 300});
  head.input.sinks = 3;
  ExpectQuarter(
      ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1, .prompt = 50, .recent = 0.25}),
      ScoreOf(ScorerKind::kOutputError, head.input, {.prompt = 50, .recent = 0.0}),
      ScoreOf(ScorerKind::kOutputError, head.input, {.pool = 1}));
}

TEST(OutputError, PromptNeedsItsQueries) {
  RandomHead head = MakeRandomHead(72, {.tokens = 30});
  head.input.prompt_queries.clear();
  EXPECT_KVC_ERROR((void)ScoreOf(ScorerKind::kOutputError, head.input, {.prompt = 5}), kBadShape,
                   "the prompt's queries");
  head = MakeRandomHead(72, {.tokens = 30});
  head.input.rope_frequencies = std::span<const double>(head.frequencies).first(3);
  EXPECT_KVC_ERROR((void)ScoreOf(ScorerKind::kOutputError, head.input, {.prompt = 5}), kBadShape,
                   "rope frequencies, got 3");
  // The window's queries are not turned: keys may be thinner than the rotation.
  EXPECT_NO_THROW((void)ScoreOf(ScorerKind::kOutputError, head.input));
}

TEST(OutputError, KeyDiffWithFewTokens) {
  for (const int64_t tokens : {1, 4, 8, 12, 13}) {
    const RandomHead head = MakeRandomHead(80, {.tokens = tokens});
    const auto plain = ScoreOf(ScorerKind::kOutputError, head.input);
    const auto mixed = ScoreOf(ScorerKind::kOutputError, head.input, {.keydiff = 0.3});
    for (int64_t j = 0; j < tokens; ++j) EXPECT_GE(mixed[j], plain[j]);
    const auto prompt = ScoreOf(ScorerKind::kOutputError, head.input, {.prompt = 9, .recent = 0.0});
    const auto both = ScoreOf(ScorerKind::kOutputError, head.input, {.prompt = 9});
    for (int64_t j = 0; j < tokens; ++j) EXPECT_GE(both[j], prompt[j]);
  }
}

TEST(OutputError, RefusesNan) {
  for (const bool mean : {false, true}) {
    RandomHead head = MakeRandomHead(90, {.tokens = 30});
    head.values[4 * 24 + 5] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_KVC_ERROR((void)ScoreOf(ScorerKind::kOutputError, head.input, {.mean = mean}), kNumeric,
                     "expected a finite score");
    head = MakeRandomHead(90, {.tokens = 30});
    head.grams[2][7] = std::numeric_limits<float>::infinity();
    EXPECT_KVC_ERROR((void)ScoreOf(ScorerKind::kOutputError, head.input, {.mean = mean}), kNumeric,
                     "expected a finite score");
  }
}

}  // namespace
}  // namespace kvc::scorers
