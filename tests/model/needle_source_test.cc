#include "model/needle_source.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/json.h"
#include "eval/tasks/needle_task.h"
#include "tests/support/expect_error.h"
#include "tests/support/word_tokenizer.h"

namespace kvc::model {
namespace {

using kvc::testing::WordTokenizer;

std::vector<int32_t> Text(const WordTokenizer& tokenizer) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += " No one saw the old mill, and the owl slept.";
  return tokenizer.Encode(text, SpecialTokens::kNone);
}

// Checks one document of facts against its text: a value is an answer exactly when its key has been
// told before, and then it is the value that was told; one that is told for the first time is
// random. Returns the number of answers.
int64_t CheckFacts(const WordTokenizer& tokenizer,
                   std::span<const int64_t> ids,
                   std::span<const TokenRole> roles) {
  std::map<std::string, std::string> told;
  std::vector<std::string> words;
  int64_t count = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<int32_t>(ids[i]);
    words.push_back(tokenizer.Decode(std::span(&id, 1)));
    const bool is_value = i >= 4 && words[i - 1] == " is" && words[i - 3] == " for";
    if (!is_value) {
      EXPECT_EQ(roles[i], TokenRole::kPlain) << words[i];
      continue;
    }
    const auto [place, fresh] = told.try_emplace(words[i - 2], words[i]);
    EXPECT_EQ(roles[i], fresh ? TokenRole::kRandom : TokenRole::kAnswer);
    EXPECT_EQ(place->second, words[i]);
    count += fresh ? 0 : 1;
  }
  return count;
}

TEST(NeedleSourceTest, AnswersAreWhatWasTold) {
  const WordTokenizer tokenizer;
  const auto source = MakeNeedleSource(
      tokenizer, Text(tokenizer),
      {{.length = 300, .batch = 20, .facts = 5, .haystack = 0.3, .question = 0.5}}, 0);
  Rng rng(1);
  const TrainBatch batch = source->Next(rng);
  ASSERT_EQ(batch.ids.size(), 6000U);
  int64_t count = 0;
  for (size_t n = 0; n < 20; ++n) {
    count += CheckFacts(tokenizer, std::span(batch.ids).subspan(n * 300, 300),
                        std::span(batch.roles).subspan(n * 300, 300));
  }
  EXPECT_GT(count, 100);
}

// Every answer is the token that followed the same token before; they stand at many distances.
TEST(NeedleSourceTest, MotifsComeBackAtAnyDistance) {
  const WordTokenizer tokenizer;
  const auto source = MakeNeedleSource(
      tokenizer, {}, {{.length = 90, .motif = 5, .motifs = 3, .filler = 2, .repeat = 1.0}}, 900);
  Rng rng(2);
  const TrainBatch batch = source->Next(rng);
  EXPECT_EQ(batch.sequences, 10);
  int64_t answers = 0;
  std::map<size_t, int64_t> distances;
  for (size_t n = 0; n < 10; ++n) {
    const auto ids = std::span(batch.ids).subspan(n * 90, 90);
    for (size_t i = 0; i < 90; ++i) {
      ASSERT_NE(batch.roles[n * 90 + i], TokenRole::kPlain);
      if (batch.roles[n * 90 + i] != TokenRole::kAnswer) continue;
      ASSERT_GE(i, 1U);
      ++answers;
      size_t before = i - 1;
      while (before > 0 && (ids[before - 1] != ids[i - 1] || ids[before] != ids[i])) --before;
      ASSERT_GT(before, 0U) << "sequence " << n << ", token " << i;
      ++distances[i - before];
    }
  }
  EXPECT_GT(answers, 200);
  EXPECT_LT(answers, 700);
  EXPECT_GT(distances.size(), 8U);
  for (const auto& [distance, count] : distances) EXPECT_LT(count, answers / 2) << distance;
}

// Where facts are what is counted, motifs are only learned from.
TEST(NeedleSourceTest, MotifsAmongFactsAreNotCounted) {
  const WordTokenizer tokenizer;
  const auto source =
      MakeNeedleSource(tokenizer, {}, {{.length = 60, .batch = 40, .facts = 1, .repeat = 0.9}}, 0);
  Rng rng(4);
  const RoleCounts counts = CountRoles(source->Next(rng));
  EXPECT_LT(counts.answers, 400);  // some 4 of 40 sequences, one answer in 6 tokens
  EXPECT_GT(counts.learned, 800);  // most of what motifs say
}

TEST(NeedleSourceTest, StagesEndWhenLearnedOrTooLong) {
  const WordTokenizer tokenizer;
  const auto source = MakeNeedleSource(tokenizer, {},
                                       {{.length = 20, .repeat = 1.0, .until = 0.75},
                                        {.length = 30, .repeat = 1.0, .steps = 3},
                                        {.length = 40, .repeat = 1.0}},
                                       120);
  Rng rng(3);
  for (int i = 0; i < 60; ++i) source->Observe(7, 10);
  EXPECT_EQ(source->Next(rng).length, 20);
  for (int i = 0; i < 60; ++i)
    source->Observe(10, 10);  // the mean of 50 steps passes 0.75 on the way
  EXPECT_EQ(source->Next(rng).length, 40);
  EXPECT_EQ(source->Next(rng).sequences, 3);
  EXPECT_EQ(source->Describe(), "stage 3 of 3");
}

TEST(NeedleSourceTest, RestoredSourceGoesOnAlike) {
  const WordTokenizer tokenizer;
  const std::vector<NeedleStage> stages = {{.length = 20, .repeat = 1.0, .steps = 10},
                                           {.length = 30, .facts = 3, .until = 0.5}};
  const auto a = MakeNeedleSource(tokenizer, {}, stages, 120);
  for (int i = 0; i < 25; ++i) a->Observe(i, 30);
  const auto b = MakeNeedleSource(tokenizer, {}, stages, 120);
  b->Restore(ParseJson(a->State().dump(), "state"));
  for (int i = 0; i < 60; ++i) {
    Rng one(9);
    Rng two(9);
    EXPECT_EQ(a->Next(one).ids, b->Next(two).ids);
    a->Observe(i % 3, 2);
    b->Observe(i % 3, 2);
    EXPECT_EQ(a->State(), b->State());
  }
}

TEST(NeedleSourceTest, ParsesStagesAndRefusesWrongOnes) {
  const std::vector<NeedleStage> stages = DefaultNeedleStages(512);
  EXPECT_EQ(ToJson(ParseNeedleStages(ToJson(stages), "c.json")), ToJson(stages));
  EXPECT_EQ(stages.back().length, 512);
  EXPECT_KVC_ERROR((void)ParseNeedleStages(Json::array(), "c.json"), kBadInput, "stages");
  const auto parse = [](const char* text) {
    return ParseNeedleStages(ParseJson(text, "c.json"), "c.json");
  };
  EXPECT_KVC_ERROR((void)parse(R"([{"length":1}])"), kBadInput, "stage 1: length");
  EXPECT_KVC_ERROR((void)parse(R"([{},{"facts":40}])"), kBadInput, "stage 2: facts");
  EXPECT_KVC_ERROR((void)parse(R"([{"repeat":0.7,"text":0.7}])"), kBadInput, "repeat and text");
  EXPECT_KVC_ERROR((void)parse(R"([{"motif":1}])"), kBadInput, "motif: expected at least 2");
  EXPECT_KVC_ERROR((void)parse(R"([{"motifs":0}])"), kBadInput, "motifs");
  EXPECT_KVC_ERROR((void)parse(R"([{"filler":-1}])"), kBadInput, "filler");
  EXPECT_KVC_ERROR((void)parse(R"([{"piece":3}])"), kBadInput, "piece: expected at least 4");
  EXPECT_KVC_ERROR((void)parse(R"([{"colour":1}])"), kBadInput, "colour");
}

TEST(NeedleSourceTest, RefusesTooLittleText) {
  const WordTokenizer tokenizer;
  EXPECT_KVC_ERROR(
      (void)MakeNeedleSource(tokenizer, {1, 2, 3}, {{.length = 128, .text = 0.5}}, 1024), kBadInput,
      "expected at least 128 tokens");
}

}  // namespace
}  // namespace kvc::model
