#include "kernels/cuda/expected_attention.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "scorers/expected_queries.h"
#include "scorers/rotation.h"
#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

using scorers::Scorer;

constexpr double kUnit = 0x1p-24;

// The heads of a case, whose prompt has queries, and the mean rotations that they borrow.
struct ExpectedCase {
  std::deque<DeviceArray<float>> rotations;
  std::vector<ExpectedHead> heads;

  explicit ExpectedCase(const ScoreCase& scores) {
    for (const ScoreHead& from : scores.Heads()) {
      ExpectedHead& head = heads.emplace_back();
      head.keys = from.keys;
      head.values = from.values;
      head.rows = from.rows;
      head.group = from.group;
      head.sinks = from.rows > ScoreCase::kSinks ? static_cast<int32_t>(ScoreCase::kSinks) : 0;
      head.prompt = from.prompt;
      head.prompt.first += from.turn.skip;
      head.prompt.rows -= from.turn.skip;
      head.cos = from.turn.cos;
      head.sin = from.turn.sin;
      head.first_position = from.turn.first + from.turn.skip;
      if (!scores.shape().rope) continue;
      const scorers::MeanRotation mean = scorers::AverageRotation(
          scores.Input(heads.size() - 1).rope_frequencies, from.rows, ScoreCase::kFuture);
      for (const std::vector<double>* part : {&mean.cos, &mean.sin}) {
        rotations.emplace_back(std::vector<float>(part->begin(), part->end()));
      }
      head.mean_cos = rotations[rotations.size() - 2].data();
      head.mean_sin = rotations.back().data();
    }
  }

  // Scores of each head; -77 where none is written.
  std::vector<std::vector<float>> ScoresOf(const ScoreCase& scores, bool covariance) {
    std::deque<DeviceArray<float>> outputs;
    for (ExpectedHead& head : heads) {
      outputs.emplace_back(std::vector<float>(static_cast<size_t>(head.rows), -77.0F));
      head.scores = outputs.back().data();
    }
    const ExpectedPlan plan = PlanExpected(heads);
    const DeviceArray<ExpectedHead> table(plan.heads);
    const DeviceArray<float> scratch(static_cast<size_t>(plan.scratch_floats));
    ExpectedScores(plan, table.data(), scratch.data(), scores.scale(), 0.02F, covariance, nullptr);
    std::vector<std::vector<float>> found;
    for (const DeviceArray<float>& output : outputs) found.push_back(output.Host());
    return found;
  }
};

// What the logits of a query head are made of: sizes of mu' and S' [D], [D, D], which are those of
// the queries, turned by the sizes of the mean rotation.
struct Sizes {
  std::vector<double> linear, square;
};
Sizes SizesOf(ConstMatrixF queries, int64_t skip, const scorers::MeanRotation& mean) {
  const int64_t width = queries.cols;
  const int64_t half = std::ssize(mean.cos);
  std::vector<double> average(static_cast<size_t>(width), 0.0);
  const double count = static_cast<double>(queries.rows - skip);
  for (int64_t t = skip; t < queries.rows; ++t) {
    for (int64_t d = 0; d < width; ++d) average[d] += queries(t, d) / count;
  }
  Sizes sizes = {std::vector<double>(width, 0.0), std::vector<double>(width * width, 0.0)};
  const auto turned = [&](const std::vector<double>& x) {
    std::vector<double> y(x.size());
    for (int64_t d = 0; d < width; ++d) {
      if (half == 0) {
        y[d] = x[d];
        continue;
      }
      const int64_t other = d < half ? d + half : d - half;
      y[d] = std::abs(mean.cos[d % half]) * x[d] + std::abs(mean.sin[d % half]) * x[other];
    }
    return y;
  };
  std::vector<double> row(static_cast<size_t>(width));
  for (int64_t t = skip; t < queries.rows; ++t) {
    // A query's own rounding, from its turn, is some u of the pair.
    for (int64_t d = 0; d < width; ++d) {
      const double other = half == 0 ? 0.0 : std::abs(queries(t, (d + half) % width));
      sizes.linear[d] += (std::abs(queries(t, d)) + other) / count;
      row[d] = std::abs(queries(t, d) - average[d]) + other;
    }
    const std::vector<double> spread = turned(row);
    for (int64_t a = 0; a < width; ++a) {
      for (int64_t b = 0; b < width; ++b)
        sizes.square[a * width + b] += spread[a] * spread[b] / count;
    }
  }
  sizes.linear = turned(sizes.linear);
  return sizes;
}

// A logit is off by (2 D + 32) u of the sizes of its terms, and T'/64 + 64 u for the sums of the
// covariance. Attention is off by that of its own logit, and by that of all others as they weigh.
std::vector<double> BoundOf(const ScoreCase& scores,
                            size_t g,
                            const std::vector<float>& found,
                            bool covariance) {
  const scorers::HeadInput input = scores.Input(g);
  const int64_t tokens = input.keys.rows;
  const int64_t sinks = tokens > input.sinks ? input.sinks : 0;
  const scorers::MeanRotation mean =
      scorers::AverageRotation(input.rope_frequencies, tokens, ScoreCase::kFuture);
  const auto width = static_cast<double>(input.keys.cols);
  double most = 0.0;
  for (const ConstMatrixF& queries : input.prompt_queries) {
    const int64_t skip = scorers::SkippedSinks(queries.rows, input.sinks);
    const Sizes sizes = SizesOf(queries, skip, mean);
    for (int64_t j = sinks; j < tokens; ++j) {
      double linear = 0.0;
      double square = 0.0;
      for (int64_t a = 0; a < input.keys.cols; ++a) {
        linear += std::abs(input.keys(j, a)) * sizes.linear[a];
        for (int64_t b = 0; b < input.keys.cols && covariance; ++b) {
          square += std::abs(input.keys(j, a)) * sizes.square[a * input.keys.cols + b] *
                    std::abs(input.keys(j, b));
        }
      }
      const double sums = static_cast<double>(queries.rows) / 64.0 + 64.0;
      most = std::max(most,
                      (2.0 * width + 32.0) * input.scale * linear +
                          (2.0 * width + 32.0 + sums) * 0.5 * input.scale * input.scale * square);
    }
  }
  std::vector<double> bound(found.size(), 0.0);
  for (int64_t j = sinks; j < tokens; ++j) {
    const double attention = 2.0 * most + static_cast<double>(tokens) / 16.0 + 16.0;
    bound[j] = kUnit * (attention + 2.0 * static_cast<double>(input.values.cols)) * found[j];
  }
  return bound;
}

const std::vector<ScoreShape> kShapes = {
    {"one token", {1}, 64, 64, 1, 1, 1, 1},
    {"few tokens", {5, 4, 3}, 64, 64, 3, 1, 5, 1},
    {"ragged widths", {100, 63}, 13, 24, 3, 1, 40, 1, false},
    {"one query", {70}, 16, 16, 2, 1, 1, 1},
    {"group of 8", {70}, 16, 24, 8, 1, 70, 1},
    {"full tiles", {132, 64}, 64, 64, 2, 1, 128, 1},
    {"wide", {90}, 128, 128, 2, 1, 90, 1},
    {"wide keys", {90}, 100, 40, 2, 1, 80, 1},
    {"several parts", {1400}, 8, 8, 2, 1, 1400, 1},
};

class ExpectedAttentionTest : public testing::TestWithParam<RowFormat> {
 protected:
  Rng rng_{55};
};

TEST_P(ExpectedAttentionTest, AgreesWithTheScorer) {
  for (const ScoreShape& shape : kShapes) {
    const ScoreCase scores(shape, GetParam(), rng_);
    ExpectedCase expected(scores);
    for (const bool covariance : {true, false}) {
      const auto scorer =
          Scorer::Create({ScorerKind::kExpectedAttention,
                          {.future = ScoreCase::kFuture, .use_covariance = covariance}});
      const std::vector<std::vector<float>> found = expected.ScoresOf(scores, covariance);
      for (size_t g = 0; g < found.size(); ++g) {
        SCOPED_TRACE(testing::Message() << shape.name << " head " << g << " " << covariance);
        scorers::TokenSums sums = scores.Counts(g);
        sums.by_prompt = found[g];
        std::vector<float> got(found[g].size());
        std::vector<float> want(found[g].size());
        scorer->Finish(sums, got);
        scorer->Score(scores.Input(g), want);
        const std::vector<double> bound = BoundOf(scores, g, got, covariance);
        const auto sinks = static_cast<size_t>(expected.heads[g].sinks);
        for (size_t j = 0; j < got.size(); ++j) {
          if (j < sinks) {
            ASSERT_EQ(found[g][j], -77.0F);
          } else {
            ASSERT_LE(std::abs(got[j] - want[j]), 2.0 * bound[j])
                << "token " << j << ": " << got[j] << " for " << want[j];
          }
        }
      }
    }
  }
}

TEST_P(ExpectedAttentionTest, IsDeterministic) {
  const ScoreCase scores({"", {130, 64, 3}, 24, 40, 3, 1, 100, 1}, GetParam(), rng_);
  ExpectedCase expected(scores);
  const auto first = expected.ScoresOf(scores, true);
  UnderOrders([&] { EXPECT_EQ(expected.ScoresOf(scores, true), first); });
}

INSTANTIATE_TEST_SUITE_P(Formats, ExpectedAttentionTest, testing::ValuesIn(kRowFormats));

TEST(ExpectedAttentionTest, BrokenNumbersReachTheHost) {
  Rng rng(3);
  for (const bool in_keys : {true, false}) {
    ScoreCase scores({"", {70}, 16, 16, 2, 1, 40, 1}, kRowsF32, rng);
    std::deque<CodedRows>& rows = in_keys ? scores.keys : scores.values;
    std::vector<float> x = rows[0].values;
    x[40 * 16 + 2] = NAN;
    rows.clear();
    rows.emplace_back(kRowsF32, 70, 16, 0, x);
    const auto found = ExpectedCase(scores).ScoresOf(scores, true);
    scorers::TokenSums sums;
    sums.by_prompt = found[0];
    sums.sinks = ScoreCase::kSinks;
    std::vector<float> out(70);
    EXPECT_THROW(Scorer::Create(ScorerKind::kExpectedAttention)->Finish(sums, out), Error);
  }
}

TEST(ExpectedAttentionTest, RefusesWhatItCannotDo) {
  Rng rng(3);
  const ScoreCase scores({"", {70}, 16, 16, 2, 1, 40, 1}, kRowsF32, rng);
  const ExpectedHead good = ExpectedCase(scores).heads[0];
  const auto plan = [&](auto change) {
    ExpectedHead head = good;
    change(head);
    (void)PlanExpected({head});
  };
  EXPECT_NO_THROW(plan([](ExpectedHead&) {}));
  EXPECT_THROW(plan([](ExpectedHead& h) { h.group = 17; }), Error);
  EXPECT_THROW(plan([](ExpectedHead& h) { h.keys.width = 130; }), Error);
  EXPECT_THROW(plan([](ExpectedHead& h) { h.sinks = 70; }), Error);
  EXPECT_THROW(plan([](ExpectedHead& h) { h.prompt.rows = 0; }), Error);
}

}  // namespace
}  // namespace kvc::cuda
