#include "eval/compare/compare.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "eval/compare/statistics.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::eval {
namespace {

constexpr int64_t kVocabulary = 96;

std::vector<std::vector<int32_t>> RandomSamples(int64_t count, int64_t length) {
  Rng rng(5);
  std::vector<std::vector<int32_t>> samples(count);
  for (auto& sample : samples) {
    for (int64_t t = 0; t < length; ++t) {
      sample.push_back(static_cast<int32_t>(rng.NextBelow(kVocabulary)));
    }
  }
  return samples;
}

class Compare : public ::testing::Test {
 protected:
  Compare() : pool_(2) {
    testing::WriteBundle(testing::GoldenModel("llama"), directory_.path());
    bundle_ = runtime::Bundle::Load(directory_.path(), {}, pool_);
    session_ = runtime::Session::Create(bundle_, pool_);
    other_ = runtime::Session::Create(bundle_, pool_);
    const CacheSpec& full = bundle_->manifest().cache;
    small_ = testing::Policy(full, Method::kUniform, ScorerKind::kSnapKv, 14, false);
    streaming_ = testing::Policy(full, Method::kStreaming, ScorerKind::kStreaming, 12, false);
  }

  // Logits of a policy at every position behind the context, one sequence on its own.
  std::vector<std::vector<float>> Walk(const std::optional<CacheSpec>& cache,
                                       const std::vector<int32_t>& sample,
                                       int64_t context) {
    runtime::SequenceOptions options;
    options.cache = cache;
    const auto sequence = session_->NewSequence(options);
    std::vector<std::vector<float>> logits;
    logits.push_back(
        testing::PrefillLast(*session_, *sequence, {sample.begin(), sample.begin() + context}));
    for (size_t t = context; t + 1 < sample.size(); ++t) {
      logits.push_back(testing::DecodeOne(*session_, *sequence, sample[t]));
    }
    return logits;
  }

  testing::TempDir directory_;
  ThreadPool pool_;
  std::shared_ptr<const runtime::Bundle> bundle_;
  std::unique_ptr<runtime::Session> session_, other_;
  CacheSpec small_, streaming_;
};

TEST_F(Compare, EqualsWalksOneByOne) {
  const WalkOptions options = {.context = 30, .decode = 12};
  const auto samples = RandomSamples(3, 42);
  // The third has a model of its own: what runs together changes nothing.
  const Contestant contestants[] = {{"full", session_.get(), {}},
                                    {"small", session_.get(), small_},
                                    {"apart", other_.get(), small_},
                                    {"streaming", session_.get(), streaming_}};
  int64_t ticks = 0;
  const auto scores = CompareSamples(contestants, samples, options, pool_, [&ticks] { ++ticks; });
  EXPECT_EQ(ticks, 12);
  ASSERT_EQ(scores.size(), 3U);
  for (size_t s = 0; s < 3; ++s) {
    const auto reference = Walk({}, samples[s], 30);
    for (size_t c = 0; c < 4; ++c) {
      const auto logits = Walk(contestants[c].cache, samples[s], 30);
      const SampleScores& score = scores[s][c];
      ASSERT_EQ(score.nll.size(), 12U);
      int64_t same = 0;
      for (size_t t = 0; t < 12; ++t) {
        // Rows that run together go through other products than a row alone: float rounding.
        EXPECT_NEAR(score.nll[t], NegativeLogLikelihood(logits[t], samples[s][30 + t]), 1e-4);
        EXPECT_NEAR(score.kld[t], KlDivergence(reference[t], logits[t]), 1e-4);
        same += ArgMax(reference[t]) == ArgMax(logits[t]) ? 1 : 0;
      }
      EXPECT_EQ(score.same_top, same);
      if (c == 0) {
        EXPECT_EQ(score.kld, std::vector<float>(12, 0.0F));
      }
    }
    EXPECT_GT(scores[s][1].kld[11], 1e-3);
    EXPECT_LT(scores[s][1].prompt.allocated_bytes, scores[s][0].prompt.allocated_bytes);
  }
}

TEST_F(Compare, StepsAloneAreTimedBehindTheWalk) {
  WalkOptions options = {.context = 30, .decode = 12};
  const auto samples = RandomSamples(2, 42);
  const Contestant contestants[] = {{"full", session_.get(), {}},
                                    {"small", session_.get(), small_}};
  const auto plain = CompareSamples(contestants, samples, options, pool_, [] {});
  options.timed_steps = 3;
  const auto timed = CompareSamples(contestants, samples, options, pool_, [] {});
  for (size_t c = 0; c < 2; ++c) {
    EXPECT_EQ(plain[0][c].token_seconds, 0.0);
    EXPECT_GT(timed[0][c].token_seconds, 0.0);
    EXPECT_EQ(timed[1][c].token_seconds, 0.0);  // the first sample alone
    EXPECT_EQ(timed[0][c].nll, plain[0][c].nll);
    EXPECT_EQ(timed[0][c].end.allocated_bytes, plain[0][c].end.allocated_bytes);
  }
  EXPECT_EQ(timed[0][0].end.choosing_seconds, 0.0);  // nothing to choose
  EXPECT_GT(timed[0][1].prompt.choosing_seconds, 0.0);
  EXPECT_GT(timed[0][1].end.choosing_seconds, timed[0][1].prompt.choosing_seconds);
}

TEST_F(Compare, NoStepIsTimedBeyondTheContextLength) {
  const int64_t length = bundle_->manifest().model.context_length;
  WalkOptions options = {.context = length - 10, .decode = 8};
  options.timed_steps = 4;  // the walk leaves room for three
  const Contestant contestants[] = {{"full", session_.get(), {}}};
  const auto samples = RandomSamples(1, length - 2);
  EXPECT_EQ(CompareSamples(contestants, samples, options, pool_, [] {})[0][0].token_seconds, 0.0);
  options.timed_steps = 3;
  EXPECT_GT(CompareSamples(contestants, samples, options, pool_, [] {})[0][0].token_seconds, 0.0);
}

TEST_F(Compare, SummariseIsTheMean) {
  SampleScores one;
  one.nll = {1.0F, 3.0F};
  one.kld = {0.5F, 0.1F};
  one.same_top = 1;
  SampleScores two = one;
  two.nll = {2.0F, 6.0F};
  two.kld = {0.2F, 0.4F};
  two.same_top = 2;
  const Divergence result = Summarise(std::vector<SampleScores>{one, two});
  EXPECT_DOUBLE_EQ(result.model.nll, 3.0);
  EXPECT_DOUBLE_EQ(result.model.perplexity, std::exp(3.0));
  EXPECT_DOUBLE_EQ(result.model.stderr_nll, 1.0);  // means 2 and 4
  EXPECT_NEAR(result.kld_mean, 0.3, 1e-7);
  EXPECT_FLOAT_EQ(static_cast<float>(result.kld_median), 0.2F);
  EXPECT_FLOAT_EQ(static_cast<float>(result.kld_p999), 0.5F);
  EXPECT_NEAR(result.kld_stderr, 0.0, 1e-7);  // 0.3 and 0.3
  EXPECT_DOUBLE_EQ(result.same_top, 0.75);
  EXPECT_DOUBLE_EQ(result.same_top_stderr, 0.25);  // 0.5 and 1
}

TEST_F(Compare, ScoresGoThroughJson) {
  const WalkOptions options = {.context = 20, .decode = 5};
  const Contestant contestants[] = {{"full", session_.get(), {}},
                                    {"small", session_.get(), small_}};
  SampleScores scores =
      CompareSamples(contestants, RandomSamples(1, 25), options, pool_, [] {})[0][1];
  scores.end.tier_tokens = {6, 1, 3};
  scores.token_seconds = 0.25;
  const SampleScores back = SampleScores::FromJson(Json::parse(scores.ToJson().dump()), "state");
  EXPECT_EQ(back.nll, scores.nll);
  EXPECT_EQ(back.kld, scores.kld);
  EXPECT_EQ(back.same_top, scores.same_top);
  EXPECT_EQ(back.prompt.allocated_bytes, scores.prompt.allocated_bytes);
  EXPECT_EQ(back.end.peak_bytes, scores.end.peak_bytes);
  EXPECT_EQ(back.prompt.choosing_seconds, scores.prompt.choosing_seconds);
  EXPECT_EQ(back.token_seconds, 0.25);
  EXPECT_EQ(back.end.TierShares(), (std::vector<double>{0.6, 0.1, 0.3}));
  Json broken = scores.ToJson();
  broken.erase("kld");
  EXPECT_KVC_ERROR((void)SampleScores::FromJson(broken, "state"), kBadInput, "kld");
}

TEST_F(Compare, SharedModelOfAnotherVocabularyIsRefused) {
  const auto model =
      kvc::testing::SourceRoot() / ".." / "shared" / "data" / "models" / "stories260k";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "needs ../shared/data/models/stories260k";
  const testing::TempDir directory;
  testing::WriteBundle(model, directory.path());
  const auto session =
      runtime::Session::Create(runtime::Bundle::Load(directory.path(), {}, pool_), pool_);
  const Contestant contestants[] = {{"full", session_.get(), {}}, {"other", session.get(), {}}};
  EXPECT_KVC_ERROR((void)CompareSamples(contestants, RandomSamples(1, 25), {}, pool_, [] {}),
                   kBadShape, "other: expected the reference's vocabulary");
}

}  // namespace
}  // namespace kvc::eval
