#include "kernels/cuda/key_scores.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

using scorers::Scorer;

// Random keys of several heads; a few of them are zero.
std::deque<CodedRows> RandomKeys(Rng& rng, const RowFormat& format, int64_t width) {
  std::deque<CodedRows> keys;
  for (const int64_t rows : {1, 0, 5, 37, 300, 701}) {
    std::vector<float> x = RandomFloats(rng, rows * width);
    // A mean that keys share, in half of the columns.
    for (int64_t i = 0; i < std::ssize(x); ++i) x[i] += i % 2 == 0 ? 1.0F : 0.0F;
    if (rows > 5) std::fill_n(&x[3 * width], width, 0.0F);
    keys.emplace_back(format, rows, width, 4, x);
  }
  return keys;
}

std::vector<std::vector<float>> ScoresOf(const std::deque<CodedRows>& keys, ScorerKind kind) {
  std::vector<KeyHead> heads;
  std::deque<DeviceArray<float>> outputs;
  for (const CodedRows& rows : keys) {
    outputs.emplace_back(std::vector<float>(static_cast<size_t>(rows.rows) + 1, -77.0F));
    heads.push_back({rows.view(), static_cast<int32_t>(rows.rows), outputs.back().data()});
  }
  const KeyScorePlan plan = PlanKeyScores(heads);
  const DeviceArray<KeyHead> table(plan.heads);
  const DeviceArray<double> scratch(static_cast<size_t>(plan.scratch_doubles));
  if (kind == ScorerKind::kKnorm) {
    KeyNormScores(plan, table.data(), nullptr);
  } else {
    KeyDiffScores(plan, table.data(), scratch.data(), nullptr);
  }
  std::vector<std::vector<float>> scores;
  for (size_t g = 0; g < keys.size(); ++g) {
    scores.push_back(outputs[g].Host());
    EXPECT_EQ(scores.back().back(), -77.0F);
    scores.back().pop_back();
  }
  return scores;
}

class KeyScoresTest : public testing::TestWithParam<RowFormat> {
 protected:
  Rng rng_{5};
};

// A norm is off by (D / 2 + 2) u of itself on either side. A cosine by (2 D + 8) u of the sizes of
// its terms, which with an anchor that is off by (D + 8) u of the mean of the sizes of |k| / |k|.
TEST_P(KeyScoresTest, AgreeWithTheScorers) {
  for (const int64_t width : {1, 13, 64, 128, 256}) {
    const std::deque<CodedRows> keys = RandomKeys(rng_, GetParam(), width);
    const auto norms = ScoresOf(keys, ScorerKind::kKnorm);
    const auto cosines = ScoresOf(keys, ScorerKind::kKeyDiff);
    for (size_t g = 0; g < keys.size(); ++g) {
      SCOPED_TRACE(testing::Message() << width << " " << keys[g].rows);
      scorers::HeadInput input;
      input.keys = input.values = keys[g].host();
      std::vector<float> knorm(norms[g].size());
      std::vector<float> keydiff(norms[g].size());
      Scorer::Create(ScorerKind::kKnorm)->Score(input, knorm);
      Scorer::Create(ScorerKind::kKeyDiff)->Score(input, keydiff);
      std::vector<double> anchor(static_cast<size_t>(width), 0.0);
      std::vector<double> size(static_cast<size_t>(width), 0.0);
      for (int64_t j = 0; j < keys[g].rows; ++j) {
        for (int64_t d = 0; d < width && knorm[j] != 0.0F; ++d) {
          const double x =
              input.keys(j, d) / -static_cast<double>(knorm[j]) / static_cast<double>(keys[g].rows);
          anchor[d] += x;
          size[d] += std::abs(x);
        }
      }
      double length = 0.0;
      for (const double x : anchor) length += x * x;
      length = std::sqrt(length);
      const double u = 0x1p-24 * static_cast<double>(width + 8);
      for (int64_t j = 0; j < keys[g].rows; ++j) {
        ASSERT_LE(std::abs(norms[g][j] - knorm[j]), u * std::abs(knorm[j])) << j;
        double terms = 0.0;
        for (int64_t d = 0; d < width && knorm[j] != 0.0F; ++d) {
          terms += std::abs(input.keys(j, d)) * size[d] / std::abs(knorm[j]) / length;
        }
        ASSERT_LE(std::abs(cosines[g][j] - keydiff[j]), 2.0 * 4.0 * u * terms) << j;
      }
    }
  }
}

TEST_P(KeyScoresTest, AreDeterministic) {
  const std::deque<CodedRows> keys = RandomKeys(rng_, GetParam(), 64);
  const auto expected = ScoresOf(keys, ScorerKind::kKeyDiff);
  UnderOrders([&] { EXPECT_EQ(ScoresOf(keys, ScorerKind::kKeyDiff), expected); });
}

INSTANTIATE_TEST_SUITE_P(Formats, KeyScoresTest, testing::ValuesIn(kRowFormats));

TEST(KeyScoresTest, BrokenNumbersReachTheHost) {
  std::vector<float> x(5 * 8, 1.0F);
  x[17] = NAN;
  std::deque<CodedRows> keys;
  keys.emplace_back(kRowsF32, 5, 8, 0, x);
  for (const ScorerKind kind : {ScorerKind::kKnorm, ScorerKind::kKeyDiff}) {
    const auto scores = ScoresOf(keys, kind);
    scorers::TokenSums sums;
    sums.by_keys = scores[0];
    std::vector<float> out(5);
    EXPECT_THROW(Scorer::Create(kind)->Finish(sums, out), Error);
  }
}

TEST(KeyScoresTest, RefuseOtherWidths) {
  EXPECT_THROW((void)PlanKeyScores({{{nullptr, RowCode::kF32, 257, 1028}, 3, nullptr}}), Error);
  EXPECT_THROW((void)PlanKeyScores({{{nullptr, RowCode::kF32, 0, 0}, 3, nullptr}}), Error);
}

}  // namespace
}  // namespace kvc::cuda
