#include "profile/needle_importance.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>
#include <torch/types.h>

#include "core/base/rng.h"
#include "model/streamed.h"
#include "profile/profile_model.h"
#include "tests/model/golden_models.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::profile {
namespace {

// A prompt of random tokens; its answer is what the model decodes greedily, so it is passed.
NeedlePrompt MakePrompt(const Checkpoint& checkpoint, int64_t answer_tokens, uint64_t seed) {
  Rng rng(seed);
  const auto token = [&] { return static_cast<int32_t>(rng.NextBelow(96)); };
  NeedlePrompt prompt;
  for (int64_t t = 0; t < 21; ++t) prompt.context.push_back(token());
  for (int64_t t = 0; t < 4; ++t) prompt.question.push_back(token());
  prompt.needle_begin = 6;
  prompt.needle_end = 11;
  std::vector<int32_t> ids = prompt.context;
  ids.insert(ids.end(), prompt.question.begin(), prompt.question.end());
  for (int64_t t = 0; t < answer_tokens; ++t) {
    const torch::Tensor logits = model::SequenceLogits(checkpoint, ids);
    ids.push_back(logits[logits.size(0) - 1].argmax().item<int32_t>());
    prompt.answer.push_back(ids.back());
  }
  return prompt;
}

// S of every kv head from the whole attention matrix, by sorting.
std::vector<double> SlowScores(const Checkpoint& checkpoint, const NeedlePrompt& prompt) {
  const ModelConfig& config = checkpoint.config();
  std::vector<int32_t> ids = prompt.context;
  ids.insert(ids.end(), prompt.question.begin(), prompt.question.end());
  ids.insert(ids.end(), prompt.answer.begin(), prompt.answer.end());
  std::vector<double> scores(config.num_layers * config.num_kv_heads, 0.0);
  model::StreamOptions stream;
  stream.taps.probabilities = true;
  NoProgress silent;
  const auto steps = static_cast<int64_t>(prompt.answer.size());
  const int64_t length = prompt.needle_end - prompt.needle_begin;
  const auto visit = [&](int64_t layer, int64_t, const model::LayerTaps& taps,
                         const model::LayerWeights&) {
    for (int64_t h = 0; h < config.num_heads; ++h) {
      double score = 0.0;
      for (int64_t s = 0; s < steps; ++s) {
        // The token before the step's.
        const int64_t row = std::ssize(ids) - steps + s - 1;
        std::vector<std::pair<double, int64_t>> keys;
        for (int64_t j = 0; j <= row; ++j) {
          keys.emplace_back(-taps.probabilities[0][h][row][j].item<double>(), j);
        }
        std::sort(keys.begin(), keys.end());
        for (int64_t i = 0; i < length; ++i) {
          const int64_t j = keys[i].second;
          if (j >= prompt.needle_begin && j < prompt.needle_end) score -= keys[i].first;
        }
      }
      double& best = scores[layer * config.num_kv_heads + h / config.group_size()];
      best = std::max(best, score / static_cast<double>(steps * length));
    }
  };
  static_cast<void>(model::StreamWindows(checkpoint, {ids}, stream, visit, silent, "test"));
  return scores;
}

class NeedleImportanceOfModel : public ::testing::TestWithParam<std::string> {};

TEST_P(NeedleImportanceOfModel, MatchesSlowScores) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden(GetParam());
  const std::vector<NeedlePrompt> prompts = {MakePrompt(checkpoint, 1, 1),
                                             MakePrompt(checkpoint, 3, 2)};
  NoProgress silent;
  const NeedleImportance importance = ScoreNeedles(checkpoint, prompts, silent);
  EXPECT_EQ(importance.tests, 2);
  EXPECT_EQ(importance.passed, 2);
  const std::vector<double> first = SlowScores(checkpoint, prompts[0]);
  const std::vector<double> second = SlowScores(checkpoint, prompts[1]);
  ASSERT_EQ(importance.scores.size(), first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_NEAR(importance.scores[i], (first[i] + second[i]) / 2, 1e-6) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         NeedleImportanceOfModel,
                         ::testing::ValuesIn(kvc::testing::GoldenNames()),
                         kvc::testing::ParameterName());

TEST(ScoreNeedles, CountsOnlyPassedTests) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  std::vector<NeedlePrompt> prompts;
  for (uint64_t seed = 1; seed <= 5; ++seed) prompts.push_back(MakePrompt(checkpoint, 2, seed));
  NoProgress silent;
  const NeedleImportance one = ScoreNeedles(checkpoint, {prompts[3]}, silent);
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (i != 3) prompts[i].answer[i % 2] ^= 1;  // the first or the second step fails
  }
  NeedleImportance importance = ScoreNeedles(checkpoint, prompts, silent);
  EXPECT_EQ(importance.tests, 5);
  EXPECT_EQ(importance.passed, 1);
  EXPECT_EQ(importance.scores, one.scores);
  EXPECT_FALSE(EnoughPassed(importance));  // one of five
  EXPECT_TRUE(EnoughPassed(one));
  importance.tests = 4;
  EXPECT_TRUE(EnoughPassed(importance));
  std::ranges::fill(importance.scores, 0.0);
  EXPECT_FALSE(EnoughPassed(importance));  // no head looks at a needle
  prompts[3].answer[0] ^= 1;
  importance = ScoreNeedles(checkpoint, prompts, silent);
  EXPECT_EQ(importance.passed, 0);
  EXPECT_EQ(std::accumulate(importance.scores.begin(), importance.scores.end(), 0.0), 0.0);
  EXPECT_FALSE(EnoughPassed(importance));
}

TEST(ScoreNeedles, RefusesPromptsWithoutParts) {
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  NoProgress silent;
  const auto score = [&](auto change) {
    NeedlePrompt prompt = MakePrompt(checkpoint, 1, 1);
    change(prompt);
    static_cast<void>(ScoreNeedles(checkpoint, {prompt}, silent));
  };
  EXPECT_NO_THROW(score([](auto&) {}));
  EXPECT_KVC_ERROR(score([](auto& p) { p.answer.clear(); }), kBadShape, "needle prompt");
  EXPECT_KVC_ERROR(score([](auto& p) { p.needle_end = p.needle_begin; }), kBadShape, "needle");
  EXPECT_KVC_ERROR(score([](auto& p) { p.needle_end = 22; }), kBadShape, "needle prompt");
}

// Head importance by needles: prompts whose answers the model gives, or does not.
TEST(ProfileModel, NeedlesDecideImportanceWhenEnoughAreAnswered) {
  ProfileOptions options;
  options.importance = Importance::kNeedle;
  options.tiers = ParseNamedTiers("0,1", "tiers");  // no bases are needed
  options.context = 20;
  options.horizon = 4;
  options.window = 5;
  const Checkpoint checkpoint = kvc::testing::OpenGolden("llama");
  ProfileInputs inputs;
  inputs.provenance = {{"seed", 1}};
  inputs.make_bases = [](int64_t, const LayerGrams&) { return LayerBases(); };
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    Rng rng(seed);
    std::vector<int32_t>& window = inputs.windows.emplace_back();
    for (int64_t t = 0; t < options.context + options.horizon; ++t) {
      window.push_back(static_cast<int32_t>(rng.NextBelow(96)));
    }
  }
  NeedlePrompt prompt;
  prompt.context = {5, 9, 3, 44, 17, 80, 21, 63};
  prompt.question = {7, 8};
  prompt.needle_begin = 2;
  prompt.needle_end = 5;
  const torch::Tensor logits =
      model::SequenceLogits(checkpoint, std::vector<int32_t>{5, 9, 3, 44, 17, 80, 21, 63, 7, 8});
  const auto right = logits[9].argmax().item<int32_t>();
  prompt.answer = {right};
  inputs.needles.assign(4, prompt);
  for (size_t wrong = 1; wrong < 4; ++wrong) inputs.needles[wrong].answer = {right ^ 1};
  NoProgress silent;
  const kvc::testing::TempDir first;
  const ProfileData needle = ProfileModel(checkpoint, inputs, options, first.path(), silent);
  EXPECT_EQ(needle.importance_method, "needle");
  EXPECT_EQ(needle.importance_tests, 1);
  EXPECT_EQ(needle.needle_tests, 4);
  EXPECT_EQ(needle.importance, needle.needle_importance);
  EXPECT_NE(needle.importance, needle.oracle_importance);
  EXPECT_NEAR(std::accumulate(needle.importance.begin(), needle.importance.end(), 0.0), 1.0, 1e-6);

  inputs.needles.push_back(inputs.needles[1]);  // one of five is too few
  const kvc::testing::TempDir second;
  const ProfileData oracle = ProfileModel(checkpoint, inputs, options, second.path(), silent);
  EXPECT_EQ(oracle.importance_method, "oracle");
  EXPECT_EQ(oracle.importance_tests, 2);
  EXPECT_EQ(oracle.needle_tests, 5);
  EXPECT_EQ(oracle.needle_passed, 1);
  EXPECT_EQ(oracle.importance, oracle.oracle_importance);
}

}  // namespace
}  // namespace kvc::profile
