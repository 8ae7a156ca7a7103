#include "model/continuation.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "model/streamed.h"
#include "model/threads.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"

namespace kvc::model {
namespace {

std::vector<std::vector<int32_t>> RandomContexts(int64_t count, int64_t length) {
  Rng rng(31);
  std::vector<std::vector<int32_t>> contexts(count);
  for (auto& context : contexts) {
    for (int64_t t = 0; t < length; ++t) {
      context.push_back(static_cast<int32_t>(rng.NextBelow(96)));
    }
  }
  return contexts;
}

std::vector<std::vector<int32_t>> Sample(const Checkpoint& checkpoint,
                                         const std::vector<std::vector<int32_t>>& contexts,
                                         const ContinuationOptions& options,
                                         const std::vector<std::vector<int32_t>>& forced = {}) {
  NoProgress silent;
  return SampleContinuations(checkpoint, contexts, forced, options, silent);
}

class EveryModel : public ::testing::TestWithParam<std::string> {};

// Greedy steps against the whole sequence anew for each token: positions, cache and layouts.
TEST_P(EveryModel, GreedyIsTheWholeSequencesArgmax) {
  const Checkpoint checkpoint = testing::OpenGolden(GetParam());
  const auto contexts = RandomContexts(2, 9);
  const auto continuations = Sample(checkpoint, contexts, {.tokens = 6, .temperature = 0.0});
  for (size_t i = 0; i < contexts.size(); ++i) {
    std::vector<int32_t> ids = contexts[i];
    ASSERT_EQ(continuations[i].size(), 6U);
    for (const int32_t token : continuations[i]) {
      const torch::Tensor logits = SequenceLogits(checkpoint, ids);
      const torch::Tensor last = logits[logits.size(0) - 1];
      // Equal but for rounding: the chosen token's logit is the largest.
      EXPECT_NEAR(last[token].item<double>(), last.max().item<double>(), 1e-4);
      ids.push_back(token);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         EveryModel,
                         ::testing::ValuesIn(testing::GoldenNames()),
                         testing::ParameterName());

// Many draws of one token follow the softmax at the temperature.
TEST(SampleContinuations, DrawsFollowTheTemperature) {
  const Checkpoint checkpoint = testing::OpenGolden("llama");
  constexpr int64_t kDraws = 2000;
  const std::vector<int32_t> context = RandomContexts(1, 5).front();
  for (const double temperature : {0.5, 2.0}) {
    const auto drawn = Sample(checkpoint, std::vector<std::vector<int32_t>>(kDraws, context),
                              {.tokens = 1, .temperature = temperature});
    const torch::Tensor logits = SequenceLogits(checkpoint, context);
    const torch::Tensor p =
        torch::softmax(logits[logits.size(0) - 1].to(torch::kFloat64) / temperature, 0);
    const auto top = p.argmax().item<int32_t>();
    const double expected = p[top].item<double>();
    const auto count = std::ranges::count_if(drawn, [&](const auto& ids) { return ids[0] == top; });
    // Five standard deviations of a binomial.
    const double deviation = std::sqrt(expected * (1.0 - expected) / kDraws);
    EXPECT_NEAR(static_cast<double>(count) / kDraws, expected, 5.0 * deviation) << temperature;
  }
}

TEST(SampleContinuations, SequencesAndThreadsDoNotChangeEachOther) {
  const Checkpoint checkpoint = testing::OpenGolden("qwen3");
  const auto contexts = RandomContexts(3, 7);
  const ContinuationOptions options = {.tokens = 8, .temperature = 1.0, .seed = 3};
  const int before = NumThreads();
  SetThreads(1);
  const auto one = Sample(checkpoint, contexts, options);
  SetThreads(3);
  EXPECT_EQ(Sample(checkpoint, contexts, options), one);
  SetThreads(before);
  EXPECT_NE(Sample(checkpoint, contexts, {.tokens = 8, .temperature = 1.0, .seed = 4}), one);
}

TEST(SampleContinuations, ForcedTokensComeFirst) {
  const Checkpoint checkpoint = testing::OpenGolden("llama");
  const auto contexts = RandomContexts(2, 7);
  const std::vector<std::vector<int32_t>> forced = {{1, 2, 3}, {}};
  const auto continuations =
      Sample(checkpoint, contexts, {.tokens = 5, .temperature = 0.0}, forced);
  EXPECT_TRUE(std::equal(forced[0].begin(), forced[0].end(), continuations[0].begin()));
  // What follows is what follows the longer context.
  std::vector<int32_t> longer = contexts[0];
  longer.insert(longer.end(), forced[0].begin(), forced[0].end());
  const auto rest = Sample(checkpoint, {longer}, {.tokens = 2, .temperature = 0.0});
  EXPECT_TRUE(std::equal(rest[0].begin(), rest[0].end(), continuations[0].begin() + 3));
  EXPECT_EQ(continuations[1], Sample(checkpoint, contexts, {.tokens = 5, .temperature = 0.0})[1]);
}

TEST(SampleContinuations, RefusesByName) {
  const Checkpoint checkpoint = testing::OpenGolden("llama");
  auto contexts = RandomContexts(2, 7);
  const auto sample = [&](const ContinuationOptions& options,
                          const std::vector<std::vector<int32_t>>& forced = {}) {
    static_cast<void>(Sample(checkpoint, contexts, options, forced));
  };
  EXPECT_KVC_ERROR(sample({.tokens = 1, .temperature = -1.0}), kUsage, "--temperature");
  EXPECT_KVC_ERROR(sample({.tokens = 1}, {{1, 2}, {}}), kBadShape, "forced");
  EXPECT_KVC_ERROR(sample({.tokens = 1}, {{1}}), kBadShape, "forced");
  contexts[1].pop_back();
  EXPECT_KVC_ERROR(sample({.tokens = 1}), kBadShape, "contexts of one length");
}

}  // namespace
}  // namespace kvc::model
