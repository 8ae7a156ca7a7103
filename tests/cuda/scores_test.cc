// Sums of scores on the device, finished by the CPU's scorers, against these scorers' own scores
// and against sums in double.

#include "kernels/cuda/scores.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

using scorers::Scorer;

// Tiles of tokens and of queries that are full, too long and too short; more than one part of the
// tokens; windows longer than a head.
std::vector<ScoreShape> Shapes() {
  return {
      {"one token", {1}, 64, 64, 1, 1},
      {"window beyond the tokens", {5, 1, 3}, 64, 64, 3, 8, 5, 4},
      {"no tokens", {0, 7}, 64, 64, 2, 4, 7, 3},
      {"ragged widths", {100, 63}, 13, 64, 3, 8, 40, 16, false},
      {"ragged values", {65, 130}, 64, 13, 1, 8, 65, 20},
      {"group of 8", {70}, 16, 24, 8, 9, 70, 33},
      {"group of 16", {70}, 16, 24, 16, 5, 70, 20},
      {"wide", {150}, 128, 128, 2, 5, 100, 9},
      {"wide keys", {64}, 100, 40, 4, 16, 64, 16},
      {"no window", {90}, 64, 64, 2, 0, 90, 30},
      {"a strong token", {90, 40}, 64, 64, 3, 8, 40, 16, true, 0.7},
      {"dominant tokens", {90, 40}, 64, 64, 3, 8, 40, 16, true, 1.5},
      {"a token alone", {90, 6, 1}, 64, 64, 1, 8, 40, 16, true, 40.0},
  };
}

// |got - want| <= bound, but for what is lost below the smallest float.
void ExpectWithin(const std::vector<float>& got,
                  const std::vector<double>& want,
                  const std::vector<double>& bound,
                  const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t j = 0; j < got.size(); ++j) {
    ASSERT_LE(std::abs(got[j] - want[j]), bound[j] + 1e-37)
        << what << ", token " << j << ": " << got[j] << " for " << want[j];
  }
}

class ScoresTest : public testing::TestWithParam<RowFormat> {
 protected:
  Rng rng_{33};
};

// Both the device's sums, finished, and the scorer's own are within the bound of the sums in
// double. Pools of 1 and no shares: with others the same host code follows.
void ExpectSameScores(const scorers::Scorer& scorer,
                      const scorers::HeadInput& input,
                      const scorers::TokenSums& sums,
                      const std::vector<double>& bound,
                      double weight) {
  std::vector<float> device(static_cast<size_t>(input.keys.rows));
  std::vector<float> host(device.size());
  scorer.Finish(sums, device);
  scorer.Score(input, host);
  for (size_t j = 0; j < host.size(); ++j) {
    const double rounding = 4.0 * 0x1p-24 * std::abs(host[j]) + 1e-37;
    ASSERT_LE(std::abs(device[j] - host[j]), 2.0 * weight * bound[j] + rounding)
        << "token " << j << ": " << device[j] << " for " << host[j];
  }
}

void ExpectScorersAgree(const ScoreCase& scores,
                        size_t g,
                        const ScoreCase::Sums& device,
                        const ScoreCase::Bounds& bounds) {
  const scorers::HeadInput input = scores.Input(g);
  scorers::TokenSums sums = scores.Counts(g);
  const auto queries = static_cast<double>(sums.window * sums.heads);
  const double weight = 1.0 / ScoreCase::kEnergy;
  const auto compare = [&](const ScorerSpec& spec, const std::vector<float>& by_window,
                           const std::vector<double>& bound, double unit) {
    sums.by_window = by_window;
    SCOPED_TRACE(ToString(spec));
    ExpectSameScores(*Scorer::Create(spec), input, sums, bound, unit);
  };
  compare({ScorerKind::kSnapKv, {.pool = 1}}, device.attention, bounds.attention_bound,
          1.0 / queries);
  compare({ScorerKind::kOutputError, {.pool = 1}}, device.error_maxima, bounds.error_maxima_bound,
          weight);
  compare({ScorerKind::kOutputError, {.pool = 1, .mean = true}}, device.error_sums,
          bounds.error_sums_bound, weight / queries);
  if (sums.prompt_queries == 0) return;
  sums.by_prompt = device.prompt_errors;
  compare({ScorerKind::kOutputError,
           {.future = ScoreCase::kFuture, .prompt = scores.shape().prompt, .recent = 0.0}},
          device.error_maxima, bounds.prompt_errors_bound,
          weight / static_cast<double>(sums.prompt_queries * sums.heads));
}

TEST_P(ScoresTest, AgreeWithDoubleAndTheScorers) {
  for (const ScoreShape& shape : Shapes()) {
    ScoreCase scores(shape, GetParam(), rng_);
    const std::vector<ScoreCase::Sums> sums = scores.Run(true, true);
    for (size_t g = 0; g < sums.size(); ++g) {
      SCOPED_TRACE(testing::Message() << shape.name << " head " << g);
      const ScoreCase::Bounds want = scores.BoundsOf(g);
      ExpectWithin(sums[g].attention, want.attention, want.attention_bound, "attention");
      ExpectWithin(sums[g].error_sums, want.error_sums, want.error_sums_bound, "sums");
      ExpectWithin(sums[g].error_maxima, want.error_maxima, want.error_maxima_bound, "maxima");
      ExpectWithin(sums[g].prompt_errors, want.prompt_errors, want.prompt_errors_bound, "prompt");
      // Scorers refuse an empty window.
      if (shape.window > 0 && shape.tokens[g] > 0) ExpectScorersAgree(scores, g, sums[g], want);
    }
  }
}

// Several parts of the tokens: they are merged, and the dominant token of one joins another's.
TEST_P(ScoresTest, SeveralParts) {
  for (const double dominance : {0.0, 3.0}) {
    ScoreCase scores({"", {2400, 70}, 8, 8, 2, 5, 30, 9, true, dominance}, GetParam(), rng_);
    ASSERT_EQ(PlanScores(scores.Heads()).most_splits, 2);
    const std::vector<ScoreCase::Sums> sums = scores.Run(true, true);
    for (size_t g = 0; g < sums.size(); ++g) {
      const ScoreCase::Bounds want = scores.BoundsOf(g);
      ExpectWithin(sums[g].attention, want.attention, want.attention_bound, "attention");
      ExpectWithin(sums[g].error_sums, want.error_sums, want.error_sums_bound, "sums");
      ExpectWithin(sums[g].prompt_errors, want.prompt_errors, want.prompt_errors_bound, "prompt");
    }
  }
}

TEST_P(ScoresTest, AttentionAloneHasTheSameBits) {
  ScoreCase scores({"", {130, 64, 1}, 24, 40, 3, 8, 40, 16, true, 1.5}, GetParam(), rng_);
  const std::vector<ScoreCase::Sums> both = scores.Run(true, true);
  const std::vector<ScoreCase::Sums> alone = scores.Run(true, false);
  for (size_t g = 0; g < both.size(); ++g) EXPECT_EQ(alone[g].attention, both[g].attention);
}

TEST_P(ScoresTest, IsDeterministic) {
  ScoreCase scores({"", {130, 64, 1}, 24, 40, 3, 8, 40, 16, true, 1.5}, GetParam(), rng_);
  const std::vector<ScoreCase::Sums> expected = scores.Run(true, true);
  UnderOrders([&] {
    const std::vector<ScoreCase::Sums> again = scores.Run(true, true);
    for (size_t g = 0; g < expected.size(); ++g) {
      EXPECT_EQ(again[g].attention, expected[g].attention);
      EXPECT_EQ(again[g].error_sums, expected[g].error_sums);
      EXPECT_EQ(again[g].error_maxima, expected[g].error_maxima);
      EXPECT_EQ(again[g].prompt_errors, expected[g].prompt_errors);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Formats, ScoresTest, testing::ValuesIn(kRowFormats));

template <class Body>
bool Throws(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNumeric);
    return true;
  }
  return false;
}

// Where the scorers throw for what is not finite, so do the sums when they are finished.
TEST(ScoresTest, BrokenNumbersReachTheHost) {
  Rng rng(7);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float broken : {std::nanf(""), inf, -inf}) {
    for (const bool in_keys : {true, false}) {
      for (const int64_t token : {0, 40, 69}) {
        SCOPED_TRACE(testing::Message() << broken << " " << in_keys << " " << token);
        ScoreCase scores({"", {70}, 16, 16, 2, 8, 40, 9, true, 1.5}, kRowsF32, rng);
        std::deque<CodedRows>& rows = in_keys ? scores.keys : scores.values;
        std::vector<float> x = rows[0].values;
        x[static_cast<size_t>(token * 16 + 3)] = broken;
        rows.clear();
        rows.emplace_back(kRowsF32, 70, 16, 0, x);
        const auto sums = scores.Run(true, true);
        const auto expect_same = [&](const ScorerSpec& spec, const std::vector<float>& by_window) {
          const auto scorer = Scorer::Create(spec);
          scorers::TokenSums found = scores.Counts(0);
          found.by_window = by_window;
          found.by_prompt = sums[0].prompt_errors;
          std::vector<float> out(70);
          const bool on_host = Throws([&] { scorer->Score(scores.Input(0), out); });
          EXPECT_EQ(Throws([&] { scorer->Finish(found, out); }), on_host) << ToString(spec);
          // Attention reads no values, and a logit of -infinity is no fault.
          EXPECT_TRUE(on_host || spec.kind == ScorerKind::kSnapKv ||
                      (in_keys && std::isinf(broken)));
        };
        expect_same(ScorerKind::kSnapKv, sums[0].attention);
        expect_same(ScorerKind::kOutputError, sums[0].error_maxima);
        expect_same({ScorerKind::kOutputError, {.mean = true}}, sums[0].error_sums);
        expect_same({ScorerKind::kOutputError, {.prompt = 9}}, sums[0].error_sums);
      }
    }
  }
}

TEST(ScoresTest, RefusesWhatItCannotDo) {
  Rng rng(8);
  ScoreCase scores({"", {70}, 16, 16, 2, 8, 40, 9}, kRowsF32, rng);
  const ScoreHead good = scores.Heads()[0];
  float out = 0.0F;
  const auto kind_of = [&](auto change) {
    ScoreHead head = good;
    head.error_sums = &out;
    change(head);
    try {
      (void)PlanScores({head});
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::kInternal;
  };
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.keys.width = 129; }), ErrorKind::kUnsupported);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.values.width = 136; }), ErrorKind::kUnsupported);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.group = 17; }), ErrorKind::kUnsupported);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.grams = nullptr; }), ErrorKind::kBadShape);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.window.data = nullptr; }), ErrorKind::kBadShape);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.turn.count = 41; }), ErrorKind::kBadShape);
  EXPECT_EQ(kind_of([](ScoreHead& h) { h.rows = -1; }), ErrorKind::kBadShape);
}

}  // namespace
}  // namespace kvc::cuda
