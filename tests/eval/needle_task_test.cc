#include "eval/tasks/needle_task.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/word_tokenizer.h"

namespace kvc {
namespace {

using kvc::testing::WordTokenizer;

constexpr const char* kHaystack =
    "It was a bright  day.\nThe sun shone on the hill, and nobody came. 'Who is there?' asked the "
    "owl. No one answered! A dog barked twice in the valley below the old mill.";

int64_t Count(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(NeedleTaskTest, WordListsAreLargeAndDisjoint) {
  std::set<std::string> all(NeedleKeys().begin(), NeedleKeys().end());
  all.insert(NeedleValues().begin(), NeedleValues().end());
  EXPECT_EQ(all.size(), NeedleKeys().size() + NeedleValues().size());
  EXPECT_GE(NeedleKeys().size(), 32U);
  EXPECT_GE(NeedleValues().size(), 32U);
}

TEST(NeedleTaskTest, QuestionEndsWhereTheNeedleGivesTheValue) {
  const std::string needle = NeedleSentence("harbor", "amber");
  const std::string question = NeedleQuestion("harbor");
  const std::string lead = needle.substr(0, needle.find(" amber"));
  ASSERT_GE(question.size(), lead.size());
  EXPECT_EQ(question.substr(question.size() - lead.size()), lead);
}

TEST(NeedleTaskTest, PromptHasTheLengthTheNeedleAndTheDistractors) {
  const WordTokenizer tokenizer;
  const NeedleTask task(tokenizer, kHaystack);
  Rng rng(3);
  for (const int64_t length : {61, 100, 257, 1024}) {
    for (const int64_t distractors : {0, 1, 3}) {
      const NeedlePrompt p = task.Make({length, 0.5, distractors}, rng);
      EXPECT_EQ(static_cast<int64_t>(p.context.size() + p.question.size()), length);
      const std::string text = tokenizer.Decode(p.context);
      EXPECT_EQ(Count(text, NeedleSentence(p.key, p.value)), 1) << text;
      EXPECT_EQ(tokenizer.Decode(p.question), NeedleQuestion(p.key));
      const std::span<const int32_t> lead(p.question.end() - p.lead, p.question.end());
      EXPECT_EQ(tokenizer.Decode(lead), " Answer: The magic word for " + p.key + " is");
      EXPECT_EQ(tokenizer.Decode(p.answer), " " + p.value);
      const std::span<const int32_t> needle(p.context.data() + p.needle_begin,
                                            p.context.data() + p.needle_end);
      EXPECT_EQ(tokenizer.Decode(needle), NeedleSentence(p.key, p.value));
      int64_t told = 0;
      for (const std::string& key : NeedleKeys()) {
        for (const std::string& value : NeedleValues()) {
          told += Count(text, NeedleSentence(key, value));
          const bool same = (key == p.key) != (value == p.value);
          EXPECT_FALSE(same && Count(text, NeedleSentence(key, value)) > 0);
        }
      }
      EXPECT_EQ(told, distractors + 1);
    }
  }
}

TEST(NeedleTaskTest, DepthPlacesTheNeedle) {
  const WordTokenizer tokenizer;
  const NeedleTask task(tokenizer, kHaystack);
  Rng rng(11);
  for (const double depth : {0.0, 0.25, 0.5, 0.9, 1.0}) {
    const NeedlePrompt p = task.Make({1000, depth, 0}, rng);
    const double room = 1000.0 - static_cast<double>(p.question.size()) -
                        static_cast<double>(p.needle_end - p.needle_begin);
    // the longest sentence has 17 tokens, so a boundary is at most 9 away
    EXPECT_NEAR(static_cast<double>(p.needle_begin), depth * room, 9.0);
  }
}

TEST(NeedleTaskTest, SameSeedSamePromptAndAllKeysComeUp) {
  const WordTokenizer tokenizer;
  const NeedleTask task(tokenizer, kHaystack);
  Rng a(5);
  Rng b(5);
  std::set<std::string> keys;
  for (int i = 0; i < 400; ++i) {
    const NeedlePrompt p = task.Make({200, 0.3, 2}, a);
    EXPECT_EQ(p.context, task.Make({200, 0.3, 2}, b).context);
    keys.insert(p.key);
  }
  EXPECT_EQ(keys.size(), NeedleKeys().size());
}

TEST(NeedleTaskTest, MarkersOfATextStartDoNotStandInside) {
  const WordTokenizer tokenizer(/*marks=*/true, /*has_bos=*/true);
  const NeedleTask task(tokenizer, kHaystack);
  Rng rng(1);
  const NeedlePrompt p = task.Make({150, 0.5, 3}, rng);
  ASSERT_FALSE(p.context.empty());
  EXPECT_EQ(p.context.front(), *tokenizer.bos_id());
  const int32_t mark = *tokenizer.TokenId("<mark>");
  EXPECT_EQ(std::count(p.context.begin(), p.context.end(), mark), 0);
  EXPECT_EQ(std::count(p.question.begin(), p.question.end(), mark), 0);
  EXPECT_EQ(static_cast<int64_t>(p.context.size() + p.question.size()), 150);
}

TEST(NeedleTaskTest, RefusesWhatCannotBe) {
  const WordTokenizer tokenizer;
  EXPECT_THROW(NeedleTask(tokenizer, " \n "), Error);
  const NeedleTask task(tokenizer, kHaystack);
  Rng rng(1);
  EXPECT_THROW((void)task.Make({20, 0.5, 3}, rng), Error);
  EXPECT_THROW((void)task.Make({1000, 1.5, 3}, rng), Error);
  EXPECT_THROW((void)task.Make({1000, 0.5, -1}, rng), Error);
  EXPECT_THROW((void)task.Make({1000, 0.5, 32}, rng), Error);
  try {
    (void)task.Make({20, 0.5, 0}, rng);
    FAIL() << "a prompt without room for the question";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("got 20"), std::string::npos);
  }
}

TEST(NeedleTaskTest, AnswersAreWholeWords) {
  EXPECT_TRUE(NeedleAnswered(" amber. The", "amber"));
  EXPECT_TRUE(NeedleAnswered("Amber", "amber"));
  EXPECT_TRUE(NeedleAnswered("\n amber", "amber"));
  EXPECT_FALSE(NeedleAnswered(" ambers", "amber"));
  EXPECT_FALSE(NeedleAnswered(" amb", "amber"));
  EXPECT_FALSE(NeedleAnswered("", "amber"));
  EXPECT_FALSE(NeedleAnswered(" the amber", "amber"));
}

}  // namespace
}  // namespace kvc
