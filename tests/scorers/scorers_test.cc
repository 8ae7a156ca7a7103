#include <algorithm>
#include <cmath>
#include <limits>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "scorers/scorer.h"
#include "tests/scorers/random_head.h"
#include "tests/support/expect_error.h"

namespace kvc::scorers {
namespace {

constexpr ScorerKind kKinds[] = {ScorerKind::kSnapKv,    ScorerKind::kExpectedAttention,
                                 ScorerKind::kKeyDiff,   ScorerKind::kKnorm,
                                 ScorerKind::kStreaming, ScorerKind::kOutputError};

// A float score is built from dot products of `width` terms of order 1 and a softmax: its relative
// error stays below some 10 width eps. NaN never agrees.
void ExpectClose(const std::vector<float>& actual,
                 const std::vector<double>& expected,
                 double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  for (size_t j = 0; j < actual.size(); ++j) {
    const double difference = std::abs(static_cast<double>(actual[j]) - expected[j]);
    ASSERT_TRUE(difference <= tolerance * largest)
        << "token " << j << ": expected " << expected[j] << ", got " << actual[j];
  }
}

constexpr double kTolerance = 10 * 24 * 6e-8;

TEST(SnapKv, EqualsReference) {
  uint64_t seed = 10;
  for (const int64_t tokens : {1, 2, 7, 8, 9, 31, 100, 1001}) {
    for (const int64_t window : {1, 5, 8, 40}) {
      for (const int64_t heads : {1, 3}) {
        const RandomHead head =
            MakeRandomHead(++seed, {.tokens = tokens, .heads = heads, .window = window});
        SCOPED_TRACE(testing::Message() << "seed " << seed << " T " << tokens << " W " << window);
        const std::vector<double> expected = reference::SnapKv(
            ToRows(head.input.keys), ToRows(head.input.queries), head.input.scale, 7);
        ExpectClose(ScoreOf(ScorerKind::kSnapKv, head.input), expected, kTolerance);
      }
    }
  }
}

TEST(SnapKv, PoolWidthOneShowsMeanAttention) {
  const RandomHead head = MakeRandomHead(50, {.tokens = 60});
  const std::vector<double> expected = reference::MeanWindowAttention(
      ToRows(head.input.keys), ToRows(head.input.queries), head.input.scale);
  const std::vector<float> scores = ScoreOf(ScorerKind::kSnapKv, head.input, {.pool = 1});
  ExpectClose(scores, expected, kTolerance);
  double sum = 0.0;
  for (const float score : scores) sum += score;
  EXPECT_NEAR(sum, 1.0, 1e-5);  // every query's row sums to 1
}

// Worked by hand: keys 0, ln 2, ln 4 (width 1), one query 1, scale 1. Attention 1/7, 2/7, 4/7;
// the window is the last token, so token 0 and 1 pool to 2/7.
TEST(SnapKv, HandWorked) {
  const std::vector<float> keys = {0.0F, std::log(2.0F), std::log(4.0F)};
  const std::vector<float> query = {1.0F};
  HeadInput input;
  input.keys = {keys.data(), 3, 1};
  input.values = {keys.data(), 3, 1};
  input.queries = {ConstMatrixF(query.data(), 1, 1)};
  ExpectClose(ScoreOf(ScorerKind::kSnapKv, input), {2.0 / 7, 2.0 / 7, 4.0 / 7}, 1e-6);
}

TEST(ExpectedAttention, EqualsReference) {
  uint64_t seed = 100;
  for (const int64_t tokens : {1, 3, 4, 5, 6, 50, 600}) {
    for (const bool rope : {false, true}) {
      for (const bool covariance : {false, true}) {
        const RandomHead head = MakeRandomHead(++seed, {.tokens = tokens, .rope = rope});
        SCOPED_TRACE(testing::Message() << "seed " << seed << " T " << tokens);
        const reference::ExpectedAttentionSettings settings = {.frequencies = head.frequencies,
                                                               .scale = head.input.scale,
                                                               .use_covariance = covariance};
        const std::vector<double> expected =
            reference::ExpectedAttention(ToRows(head.input.keys), ToRows(head.input.values),
                                         ToRows(head.input.prompt_queries), settings);
        ExpectClose(
            ScoreOf(ScorerKind::kExpectedAttention, head.input, {.use_covariance = covariance}),
            expected, kTolerance);
      }
    }
  }
}

// One pair at frequency pi over 2 positions from T = 2: rotations by 2 pi and 3 pi cancel, so that
// attention is uniform and the value's norm decides.
TEST(ExpectedAttention, HandWorked) {
  const std::vector<float> keys = {1, 0, 5, 1};
  const std::vector<float> values = {3, 4, 0, 1};
  const std::vector<float> queries = {1, 2, 3, 4};
  const std::vector<double> frequencies = {std::acos(-1.0)};
  HeadInput input;
  input.keys = {keys.data(), 2, 2};
  input.values = {values.data(), 2, 2};
  input.prompt_queries = {ConstMatrixF(queries.data(), 2, 2)};
  input.rope_frequencies = frequencies;
  input.sinks = 0;
  const std::vector<float> scores =
      ScoreOf(ScorerKind::kExpectedAttention, input, {.future = 2, .epsilon = 0.5});
  ExpectClose(scores, {5.0, 1.0}, 1e-6);
}

TEST(KeyDiff, EqualsReference) {
  for (const int64_t tokens : {1, 2, 77, 513}) {
    RandomHead head =
        MakeRandomHead(200 + tokens, {.tokens = tokens, .key_width = 17, .rope = false});
    if (tokens > 5) std::fill_n(head.keys.begin() + 5 * 17, 17, 0.0F);  // a zero key scores 0
    ExpectClose(ScoreOf(ScorerKind::kKeyDiff, head.input),
                reference::KeyDiff(ToRows(head.input.keys)), kTolerance);
  }
}

TEST(KeyDiff, AloneIsMinusOne) {
  const std::vector<float> keys = {3, 4};
  HeadInput input;
  input.keys = {keys.data(), 1, 2};
  input.values = {keys.data(), 1, 2};
  EXPECT_NEAR(ScoreOf(ScorerKind::kKeyDiff, input)[0], -1.0, 1e-6);
}

TEST(Knorm, IsMinusNorm) {
  const std::vector<float> keys = {3, 4, 0, 0, 5, 12};
  HeadInput input;
  input.keys = {keys.data(), 3, 2};
  input.values = {keys.data(), 3, 2};
  EXPECT_EQ(ScoreOf(ScorerKind::kKnorm, input), (std::vector<float>{-5, 0, -13}));
}

TEST(Streaming, RanksByRecency) {
  const RandomHead head = MakeRandomHead(300, {.tokens = 40});
  const std::vector<float> scores = ScoreOf(ScorerKind::kStreaming, head.input);
  EXPECT_TRUE(std::ranges::is_sorted(scores, std::ranges::less_equal()));
}

// Rows that lie apart in a wider matrix give the same bits as dense ones.
TEST(Scorers, AcceptStridedRows) {
  const RandomHead head = MakeRandomHead(400, {.tokens = 90});
  std::vector<float> wide(90 * 40, std::numeric_limits<float>::quiet_NaN());
  for (int64_t j = 0; j < 90; ++j) {
    std::copy_n(head.input.keys.row(j), 16, wide.begin() + j * 40);
  }
  HeadInput strided = head.input;
  strided.keys = {wide.data(), 90, 16, 40};
  for (const ScorerKind kind : kKinds) {
    EXPECT_EQ(ScoreOf(kind, strided), ScoreOf(kind, head.input)) << ScorerName(kind);
  }
}

// A copy of rows with column c at `places[c]`; storage is kept by the caller.
ConstMatrixF Permuted(ConstMatrixF rows,
                      const std::vector<int64_t>& places,
                      std::list<std::vector<float>>& storage) {
  std::vector<float>& data = storage.emplace_back(rows.rows * rows.cols);
  for (int64_t t = 0; t < rows.rows; ++t) {
    for (int64_t c = 0; c < rows.cols; ++c) data[t * rows.cols + places[c]] = rows(t, c);
  }
  return {data.data(), rows.rows, rows.cols};
}

// Turning half of a head is turning all of it, the other half by nothing.
TEST(Scorers, PartOfAHeadIsTurned) {
  const RandomHead head = MakeRandomHead(700, {.tokens = 40});
  HeadInput part = head.input;
  part.rope_frequencies = part.rope_frequencies.first(4);
  part.rotary_width = 8;  // pairs (j, j + 4), then 8 dimensions that stay
  const std::vector<int64_t> places = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};
  std::vector<double> frequencies(part.rope_frequencies.begin(), part.rope_frequencies.end());
  frequencies.resize(8, 0.0);
  std::list<std::vector<float>> storage;
  HeadInput whole = head.input;
  whole.rope_frequencies = frequencies;
  whole.keys = Permuted(part.keys, places, storage);
  for (ConstMatrixF& rows : whole.queries) rows = Permuted(rows, places, storage);
  for (ConstMatrixF& rows : whole.prompt_queries) rows = Permuted(rows, places, storage);
  for (const auto& [kind, options] :
       {std::pair{ScorerKind::kExpectedAttention, ScorerOptions{}},
        std::pair{ScorerKind::kOutputError, ScorerOptions{.prompt = 9}}}) {
    const std::vector<float> actual = ScoreOf(kind, part, options);
    const std::vector<float> expected = ScoreOf(kind, whole, options);
    ExpectClose(actual, {expected.begin(), expected.end()}, 10 * kTolerance);
    EXPECT_NE(ScoreOf(kind, head.input, options), actual) << ScorerName(kind);
  }
}

// A rotation that makes queries longer is one of longer queries.
TEST(Scorers, RotationThatScales) {
  const RandomHead head = MakeRandomHead(701, {.tokens = 40});
  HeadInput scaled = head.input;
  scaled.rope_factor = 1.25;
  std::list<std::vector<float>> storage;
  HeadInput longer = head.input;
  for (ConstMatrixF& rows : longer.prompt_queries) {
    std::vector<float>& data = storage.emplace_back(rows.data, rows.data + rows.rows * rows.cols);
    for (float& x : data) x *= 1.25F;
    rows = {data.data(), rows.rows, rows.cols};
  }
  for (const auto& [kind, options] :
       {std::pair{ScorerKind::kExpectedAttention, ScorerOptions{}},
        std::pair{ScorerKind::kOutputError, ScorerOptions{.prompt = 9}}}) {
    const std::vector<float> actual = ScoreOf(kind, scaled, options);
    const std::vector<float> expected = ScoreOf(kind, longer, options);
    ExpectClose(actual, {expected.begin(), expected.end()}, 10 * kTolerance);
    EXPECT_NE(ScoreOf(kind, head.input, options), actual) << ScorerName(kind);
  }
}

TEST(Scorers, NoTokens) {
  HeadInput input;
  for (const ScorerKind kind : kKinds) EXPECT_TRUE(ScoreOf(kind, input).empty());
}

ErrorKind KindOf(ScorerKind kind, const HeadInput& input, const ScorerOptions& options = {}) {
  try {
    static_cast<void>(ScoreOf(kind, input, options));
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(ScorerName(kind)), std::string::npos) << error.what();
    return error.kind();
  }
  return ErrorKind::kInternal;
}

TEST(Scorers, RefuseNan) {
  for (const ScorerKind kind : kKinds) {
    if (kind == ScorerKind::kStreaming) continue;  // looks at no number
    RandomHead head = MakeRandomHead(500, {.tokens = 30});
    head.keys[10 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(KindOf(kind, head.input), ErrorKind::kNumeric) << ScorerName(kind);
  }
  RandomHead head = MakeRandomHead(501, {.tokens = 30});
  head.queries[1][0] = std::numeric_limits<float>::infinity();
  head.prompts[1][90] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(KindOf(ScorerKind::kSnapKv, head.input), ErrorKind::kNumeric);
  EXPECT_EQ(KindOf(ScorerKind::kExpectedAttention, head.input), ErrorKind::kNumeric);
}

TEST(Scorers, RefuseSizesThatDisagree) {
  const RandomHead head = MakeRandomHead(600, {.tokens = 30});
  HeadInput input = head.input;
  input.values.rows = 29;
  for (const ScorerKind kind : kKinds) EXPECT_EQ(KindOf(kind, input), ErrorKind::kBadShape);
  input = head.input;
  input.queries[1].cols = 15;
  EXPECT_EQ(KindOf(ScorerKind::kSnapKv, input), ErrorKind::kBadShape);
  input.queries.clear();
  EXPECT_EQ(KindOf(ScorerKind::kSnapKv, input), ErrorKind::kBadShape);
  input = head.input;
  input.prompt_queries.clear();
  EXPECT_EQ(KindOf(ScorerKind::kExpectedAttention, input), ErrorKind::kBadShape);
  input = head.input;
  input.output_grams.pop_back();
  EXPECT_EQ(KindOf(ScorerKind::kOutputError, input), ErrorKind::kBadShape);
  input = head.input;
  input.output_grams[1].cols = 23;
  EXPECT_EQ(KindOf(ScorerKind::kOutputError, input), ErrorKind::kBadShape);
  input = head.input;
  input.residual_energy = 0.0;
  EXPECT_EQ(KindOf(ScorerKind::kOutputError, input), ErrorKind::kNumeric);
  input = head.input;
  input.rope_frequencies = input.rope_frequencies.first(3);
  EXPECT_EQ(KindOf(ScorerKind::kExpectedAttention, input), ErrorKind::kBadShape);
}

TEST(Scorers, CreateRefusesByName) {
  const HeadInput input;
  EXPECT_EQ(KindOf(ScorerKind::kOutputError, input, {.pool = 4}), ErrorKind::kUsage);
  EXPECT_EQ(KindOf(ScorerKind::kOutputError, input, {.keydiff = 1.0}), ErrorKind::kUsage);
  EXPECT_EQ(KindOf(ScorerKind::kSnapKv, input, {.pool = 4}), ErrorKind::kUsage);
  EXPECT_EQ(KindOf(ScorerKind::kExpectedAttention, input, {.future = 0}), ErrorKind::kUsage);
  EXPECT_EQ(KindOf(ScorerKind::kExpectedAttention, input, {.epsilon = -1}), ErrorKind::kUsage);
}

TEST(CombineHeads, EqualWeights) {
  const std::vector<std::vector<float>> heads = {{1, 3}, {6, 2}};  // sums 4 and 8
  std::vector<float> scores(2);
  CombineHeads(*Scorer::Create(ScorerKind::kSnapKv), heads, scores);
  EXPECT_FLOAT_EQ(scores[0], (0.25F + 0.75F) / 2);
  EXPECT_FLOAT_EQ(scores[1], (0.75F + 0.25F) / 2);
}

TEST(CombineHeads, NegativeScoresKeepTheirOrder) {
  const std::vector<std::vector<float>> heads = {{-1, -2, -3}, {-10, -20, -30}};
  std::vector<float> scores(3);
  CombineHeads(*Scorer::Create(ScorerKind::kSnapKv), heads, scores);
  EXPECT_GT(scores[0], scores[1]);
  EXPECT_GT(scores[1], scores[2]);
}

TEST(CombineHeads, LossesInOneUnitAreAdded) {
  const std::vector<std::vector<float>> heads = {{1, 3}, {6, 2}};
  std::vector<float> scores(2);
  CombineHeads(*Scorer::Create(ScorerKind::kOutputError), heads, scores);
  EXPECT_EQ(scores, (std::vector<float>{7, 5}));
}

TEST(CombineHeads, SingleHeadIsCopied) {
  const std::vector<std::vector<float>> heads = {{-7, 0.1F, 9}};
  std::vector<float> scores(3);
  CombineHeads(*Scorer::Create(ScorerKind::kSnapKv), heads, scores);
  EXPECT_EQ(scores, heads[0]);
}

TEST(CombineHeads, ZeroHeadAndBadSizes) {
  const std::vector<std::vector<float>> heads = {{0, 0}, {1, 3}};
  std::vector<float> scores(2);
  CombineHeads(*Scorer::Create(ScorerKind::kSnapKv), heads, scores);
  EXPECT_FLOAT_EQ(scores[1], 0.375F);
  std::vector<float> wrong(3);
  const auto scorer = Scorer::Create(ScorerKind::kSnapKv);
  EXPECT_KVC_ERROR(CombineHeads(*scorer, heads, wrong), kBadShape,
                   "expected 3 scores of each head, got 2");
  EXPECT_KVC_ERROR(CombineHeads(*scorer, {}, wrong), kBadShape, "a head or more");
}

}  // namespace
}  // namespace kvc::scorers
