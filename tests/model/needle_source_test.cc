#include "model/needle_source.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/needle_task.h"
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
// told before, and then it is the value that was told. Returns the number of answers.
int64_t CheckFacts(const WordTokenizer& tokenizer,
                   std::span<const int64_t> ids,
                   std::span<const uint8_t> answers) {
  std::map<std::string, std::string> told;
  std::vector<std::string> words;
  int64_t count = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<int32_t>(ids[i]);
    words.push_back(tokenizer.Decode(std::span(&id, 1)));
    const bool is_value = i >= 4 && words[i - 1] == " is" && words[i - 3] == " of";
    if (!is_value) {
      EXPECT_EQ(answers[i], 0) << words[i];
      continue;
    }
    const auto [place, fresh] = told.try_emplace(words[i - 2], words[i]);
    EXPECT_EQ(answers[i], fresh ? 0 : 1);
    EXPECT_EQ(place->second, words[i]);
    count += fresh ? 0 : 1;
  }
  return count;
}

TEST(NeedleSourceTest, AnswersAreWhatWasTold) {
  const WordTokenizer tokenizer;
  const auto source =
      MakeNeedleSource(tokenizer,
                       Text(tokenizer),
                       {{.length = 300, .batch = 20, .facts = 5, .haystack = 0.3, .question = 0.5}},
                       0);
  Rng rng(1);
  const TrainBatch batch = source->Next(rng);
  ASSERT_EQ(batch.ids.size(), 6000U);
  int64_t count = 0;
  for (size_t n = 0; n < 20; ++n) {
    count += CheckFacts(tokenizer,
                        std::span(batch.ids).subspan(n * 300, 300),
                        std::span(batch.answers).subspan(n * 300, 300));
  }
  EXPECT_GT(count, 100);
}

TEST(NeedleSourceTest, MotifsRepeat) {
  const WordTokenizer tokenizer;
  const auto source =
      MakeNeedleSource(tokenizer, {}, {{.length = 90, .motif = 4, .repeat = 1.0}}, 900);
  Rng rng(2);
  const TrainBatch batch = source->Next(rng);
  EXPECT_EQ(batch.sequences, 10);
  for (size_t n = 0; n < 10; ++n) {
    const auto begin = batch.answers.begin() + static_cast<int64_t>(n) * 90;
    const auto first = std::find(begin, begin + 90, 1);
    const auto period = static_cast<size_t>(first - begin);
    EXPECT_GE(period, 2U);
    EXPECT_EQ(std::count(first, begin + 90, 1), 90 - static_cast<int64_t>(period));
    for (size_t i = period; i < 90; ++i) {
      EXPECT_EQ(batch.ids[n * 90 + i], batch.ids[n * 90 + i - period]);
    }
  }
}

TEST(NeedleSourceTest, StagesEndWhenLearnedOrTooLong) {
  const WordTokenizer tokenizer;
  const auto source = MakeNeedleSource(tokenizer,
                                       {},
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
  EXPECT_KVC_ERROR((void)parse(R"([{"colour":1}])"), kBadInput, "colour");
}

TEST(NeedleSourceTest, RefusesTooLittleText) {
  const WordTokenizer tokenizer;
  EXPECT_KVC_ERROR(
      (void)MakeNeedleSource(tokenizer, {1, 2, 3}, {{.length = 128, .text = 0.5}}, 1024),
      kBadInput,
      "expected at least 128 tokens");
}

}  // namespace
}  // namespace kvc::model
