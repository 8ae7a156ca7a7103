// Prompts and scores of the generated and read tasks: ruler, lines, longbench.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "eval/tasks/lines.h"
#include "eval/tasks/longbench.h"
#include "eval/tasks/ruler.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/support/word_tokenizer.h"

namespace kvc::eval {
namespace {

using kvc::testing::WordTokenizer;

std::string Context(const Tokenizer& tokenizer, const TaskPrompt& prompt) {
  return tokenizer.Decode(prompt.asked.context);
}
std::string Question(const Tokenizer& tokenizer, const TaskPrompt& prompt) {
  return tokenizer.Decode(prompt.asked.question);
}
std::string Lead(const Tokenizer& tokenizer, const TaskPrompt& prompt) {
  return tokenizer.Decode(
      {prompt.asked.question.end() - prompt.asked.lead, prompt.asked.question.end()});
}

TEST(TaskPrompt, LongestCountsTheQuestionAndTheAnswer) {
  EXPECT_EQ(LongestPrompt({}), 0);
  std::vector<TaskPrompt> prompts(3);
  prompts[0].asked = {std::vector<int32_t>(9), std::vector<int32_t>(2), 1, 3};
  prompts[1].asked = {std::vector<int32_t>(4), std::vector<int32_t>(7), 1, 4};  // the longest
  prompts[2].asked = {std::vector<int32_t>(5), std::vector<int32_t>(1), 1, 8};
  EXPECT_EQ(LongestPrompt(prompts), 15);
}

class Ruler : public ::testing::Test {
 protected:
  Ruler() {
    // Four hundred different words in sentences of eight.
    for (int i = 0; i < 400; ++i) {
      haystack_ += std::string(" w") + char('a' + i / 26 / 26) + char('a' + i / 26 % 26) +
                   char('a' + i % 26) + (i % 8 == 7 ? "." : "");
    }
  }
  std::vector<TaskPrompt> Plan(const std::string& task, int64_t length, int64_t samples = 3) {
    return PlanRuler(tokenizer_, haystack_, {{task}, {length}, samples, 5});
  }
  static int64_t TokensOf(const TaskPrompt& prompt) {
    return std::ssize(prompt.asked.context) + std::ssize(prompt.asked.question) +
           prompt.asked.answer_tokens;
  }

  WordTokenizer tokenizer_;
  std::string haystack_;
};

TEST_F(Ruler, FactsStandInTheText) {
  const std::map<std::string, std::pair<int, int>> facts_and_asked = {
      {"single", {1, 1}}, {"multi-key", {4, 1}}, {"multi-value", {4, 4}}, {"multi-query", {4, 4}}};
  for (const auto& [task, counts] : facts_and_asked) {
    for (const TaskPrompt& prompt : Plan(task, 300)) {
      EXPECT_EQ(prompt.task, task);
      EXPECT_EQ(TokensOf(prompt), 300);
      const std::string text = Context(tokenizer_, prompt);
      const std::string question = Question(tokenizer_, prompt);
      // Every " ... secret number for KEY is N."
      std::string right;
      std::string wrong;
      int facts = 0;
      int asked = 0;
      for (size_t at = text.find("secret number for "); at != std::string::npos;
           at = text.find("secret number for ", at + 1)) {
        std::istringstream words(text.substr(at + 18));
        std::string key, is, number;
        words >> key >> is >> number;
        number.pop_back();
        const bool is_asked = question.find(key) != std::string::npos;
        (is_asked ? right : wrong) += " " + number;
        asked += is_asked ? 1 : 0;
        ++facts;
      }
      EXPECT_EQ(facts, counts.first);
      EXPECT_EQ(asked, counts.second);
      EXPECT_EQ(prompt.score(right), 1.0) << text;
      EXPECT_EQ(prompt.score(wrong), 0.0);
      EXPECT_TRUE(Lead(tokenizer_, prompt).starts_with(" Answer: The secret number"));
    }
  }
}

TEST_F(Ruler, TrackingIsAChain) {
  const TaskPrompt prompt = Plan("tracking", 300, 1)[0];
  EXPECT_EQ(TokensOf(prompt), 300);
  std::istringstream text(Context(tokenizer_, prompt));
  const std::string question = Question(tokenizer_, prompt);
  std::string word, answer, last;
  while (text >> word) {
    if (word != "VAR") continue;
    std::string name, equals, value;
    text >> name >> equals >> value;
    if (value == "VAR") {
      text >> value;
      value.pop_back();
      EXPECT_EQ(value, last) << "each variable is set to the one before";
    } else {
      value.pop_back();
      EXPECT_TRUE(last.empty());
      EXPECT_NE(question.find(value), std::string::npos);
    }
    last = name;
    answer += " " + name;
  }
  EXPECT_EQ(prompt.score(answer), 1.0);
  EXPECT_DOUBLE_EQ(prompt.score(last), 0.2);
}

// The `count` words of the context that stand most often, and how often the next one does.
std::vector<std::pair<int, std::string>> ByFrequency(const std::string& text) {
  std::map<std::string, int> counts;
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    if (word.back() != '.') ++counts[word];
  }
  std::vector<std::pair<int, std::string>> sorted;
  for (const auto& [name, count] : counts) sorted.emplace_back(count, name);
  std::sort(sorted.rbegin(), sorted.rend());
  return sorted;
}

TEST_F(Ruler, CommonAndFrequentWordsAreTheMostFrequent) {
  for (const auto& [task, count] :
       std::map<std::string, size_t>{{"common-words", 10}, {"frequent-words", 3}}) {
    for (const int64_t length : {400, 1500}) {
      for (const TaskPrompt& prompt : Plan(task, length)) {
        EXPECT_LE(TokensOf(prompt), length);
        EXPECT_GT(TokensOf(prompt), length - (task == "common-words" ? 200 : 20));
        const auto sorted = ByFrequency(Context(tokenizer_, prompt));
        ASSERT_GT(sorted.size(), count);
        EXPECT_GT(sorted[count - 1].first, sorted[count].first) << task << " " << length;
        std::string answer;
        for (size_t i = 0; i < count; ++i) answer += sorted[i].second + ", ";
        EXPECT_EQ(prompt.score(answer), 1.0) << task;
        EXPECT_LT(prompt.score(sorted[count].second), 1.0);
      }
    }
  }
}

TEST_F(Ruler, SameSeedSamePromptsWhateverElseIsAsked) {
  const auto alone = Plan("tracking", 300);
  const auto all = PlanRuler(tokenizer_, haystack_, {RulerTasks(), {300}, 3, 5});
  ASSERT_EQ(all.size(), 21U);
  const auto same = std::find_if(
      all.begin(), all.end(), [](const TaskPrompt& prompt) { return prompt.task == "tracking"; });
  EXPECT_EQ(same->asked.context, alone[0].asked.context);
  const auto other = PlanRuler(tokenizer_, haystack_, {{"tracking"}, {300}, 1, 6});
  EXPECT_NE(other[0].asked.context, alone[0].asked.context);
}

TEST_F(Ruler, RefusesByName) {
  EXPECT_KVC_ERROR((void)Plan("summaries", 300), kUsage, "multi-key");
  EXPECT_KVC_ERROR((void)Plan("single", 20), kUsage, "single: expected at least");
  EXPECT_KVC_ERROR((void)PlanRuler(tokenizer_, "One short text.", {{"common-words"}, {300}, 1, 5}),
                   kBadInput, "words");
}

TEST(Recall, CountsStringsWhateverTheirCase) {
  EXPECT_DOUBLE_EQ(Recall("The Answer is ALPHA", {"alpha", "beta"}), 0.5);
  EXPECT_DOUBLE_EQ(Recall("", {"a"}), 0.0);
}

class Files : public ::testing::Test {
 protected:
  std::filesystem::path Write(const std::string& text) {
    std::ofstream(directory_ / "file.jsonl") << text;
    return directory_ / "file.jsonl";
  }
  WordTokenizer tokenizer_;
  testing::TempDir directory_;
};

constexpr const char* kLines =
    R"({"random_idx": ["old-cat", 2], "expected_number": 77, "prompt": "Remember:\n\nline a-b: REGISTER_CONTENT is <11>\nline c-d: REGISTER_CONTENT is <22>\nline old-cat: REGISTER_CONTENT is <77>\nline e-f: REGISTER_CONTENT is <44>\n\nNow tell me the number in line old-cat? "})";

TEST_F(Files, LinesKeepTheAskedOne) {
  const auto prompts = PlanLines(tokenizer_, Write(kLines), {0, {0, 2, 1}});
  ASSERT_EQ(prompts.size(), 3U);
  const std::string all = Context(tokenizer_, prompts[0]);
  EXPECT_TRUE(all.starts_with("Remember:\n\nline a-b"));
  EXPECT_NE(all.find("<44>"), std::string::npos);
  EXPECT_EQ(prompts[0].length, 4);
  const std::string two = Context(tokenizer_, prompts[1]);
  EXPECT_EQ(two,
            "Remember:\n\nline c-d: REGISTER_CONTENT is <22>\nline old-cat: REGISTER_CONTENT is "
            "<77>\n");
  EXPECT_NE(Context(tokenizer_, prompts[2]).find("<77>"), std::string::npos);
  EXPECT_TRUE(Question(tokenizer_, prompts[0]).starts_with("\nNow tell me"));
  EXPECT_EQ(Lead(tokenizer_, prompts[0]), " The <REGISTER_CONTENT> in line old-cat is <");
  EXPECT_EQ(prompts[0].score("77>. line"), 1.0);
  EXPECT_EQ(prompts[0].score("22> or 77"), 0.0);
  EXPECT_EQ(prompts[0].score("unknown"), 0.0);
}

TEST_F(Files, LinesRefuseWhatIsBroken) {
  EXPECT_KVC_ERROR((void)PlanLines(tokenizer_, Write(kLines), {0, {5}}), kUsage,
                   "at most the 4 lines");
  EXPECT_KVC_ERROR((void)PlanLines(tokenizer_, Write("{\"random_idx\": [\"x\"]}"), {}), kBadInput,
                   "\"expected_number\"");
  EXPECT_KVC_ERROR((void)PlanLines(tokenizer_, Write("\n[1]\n"), {}), kBadInput, "line 2");
  std::string text = kLines;
  text.replace(text.find("line old-cat: REG"), 13, "line new-cat:");
  EXPECT_KVC_ERROR((void)PlanLines(tokenizer_, Write(text), {}), kBadInput, "old-cat");
}

TEST_F(Files, SharedLongChatFile) {
  const auto file =
      kvc::testing::SourceRoot() / ".." / "shared" / "data" / "text" / "longchat-lines-200.jsonl";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs ../shared/data/text";
  const auto prompts = PlanLines(tokenizer_, file, {0, {200, 40}});
  ASSERT_EQ(prompts.size(), 100U);
  EXPECT_EQ(prompts[0].length, 200);
  EXPECT_EQ(prompts[0].score("2416>"), 1.0);
  EXPECT_NE(Context(tokenizer_, prompts[50]).find("<2416>"), std::string::npos);
}

std::string Example(const std::string& dataset, const std::string& more = "") {
  return R"({"dataset": ")" + dataset +
         R"(", "input": "Who?", "context": "one two three four five six", "answers": ["x y", "paragraph 3"])" +
         more + "}\n";
}

TEST_F(Files, LongBenchBuildsPrompts) {
  const auto prompts = PlanLongBench(
      tokenizer_, Write(Example("hotpotqa") + Example("lcc_e") + Example("passage_count")), {});
  ASSERT_EQ(prompts.size(), 3U);
  EXPECT_EQ(Context(tokenizer_, prompts[0]), "one two three four five six");
  EXPECT_EQ(Question(tokenizer_, prompts[0]), "\n\nQuestion: Who?\nAnswer:");
  EXPECT_EQ(Lead(tokenizer_, prompts[0]), "\nAnswer:");
  EXPECT_EQ(prompts[0].asked.answer_tokens, 32);
  EXPECT_DOUBLE_EQ(prompts[0].score("X."), 2.0 / 3);  // one word of two
  EXPECT_EQ(prompts[1].task, "lcc");
  EXPECT_EQ(Question(tokenizer_, prompts[1]), "Who?");
  EXPECT_EQ(prompts[1].asked.lead, 1);
  EXPECT_EQ(prompts[2].score(" 3."), 1.0);
}

TEST_F(Files, LongBenchTemplatesAndLengths) {
  LongBenchOptions options;
  options.prompt = "Read: {context}";
  const auto only = PlanLongBench(tokenizer_, Write(Example("qasper")), options);
  EXPECT_EQ(Context(tokenizer_, only[0]), "Read: one two three four five");
  EXPECT_EQ(Question(tokenizer_, only[0]), " six");
  options.prompt = "{context} {input}?";
  options.max_length = 128 + 3 + 4;  // answer, question and four words
  const auto cut = PlanLongBench(tokenizer_, Write(Example("qasper")), options);
  EXPECT_EQ(Context(tokenizer_, cut[0]), "one two five six");
  options.max_length = 130;
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write(Example("qasper")), options), kUsage,
                   "--max-length");
  options.prompt = "{context} {context} {input}";
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write(Example("qasper")), options), kUsage,
                   "{context} once");
  options.prompt = "no mark";
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write(Example("qasper")), options), kUsage,
                   "{context}");
}

// As str.format would: {input} before the context, behind it, and in both places.
TEST_F(Files, LongBenchFillsEveryInput) {
  LongBenchOptions options;
  options.prompt = "Asked: {input} {context}\nNow:";
  const auto before = PlanLongBench(tokenizer_, Write(Example("qasper")), options);
  EXPECT_EQ(Context(tokenizer_, before[0]), "Asked: Who? one two three four five six");
  EXPECT_EQ(Question(tokenizer_, before[0]), "\nNow:");
  options.prompt = "{input} {context} {input} Again, {input}:";
  const auto all = PlanLongBench(tokenizer_, Write(Example("qasper")), options);
  EXPECT_EQ(Context(tokenizer_, all[0]), "Who? one two three four five six");
  EXPECT_EQ(Question(tokenizer_, all[0]), " Who? Again, Who?:");
  EXPECT_EQ(Lead(tokenizer_, all[0]), " Again, Who?:");
}

TEST_F(Files, LongBenchMarksFirstLinesAndClasses) {
  const std::string trec =
      R"({"dataset": "trec", "input": "Type:", "context": "c", "answers": ["City"], "all_classes": ["City", "Animal"]})";
  const auto prompts = PlanLongBench(tokenizer_, Write(trec), {});
  EXPECT_EQ(prompts[0].score("\nCity\nAnimal"), 1.0);
  EXPECT_EQ(prompts[0].score("Animal"), 0.0);
}

TEST_F(Files, LongBenchRefusesByName) {
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write(Example("dureader")), {}), kUnsupported,
                   "dureader");
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write(Example("trec")), {}), kBadInput,
                   "all_classes");
  EXPECT_KVC_ERROR((void)PlanLongBench(tokenizer_, Write("{\"dataset\": \"lcc\"}"), {}), kBadInput,
                   "\"answers\"");
}

}  // namespace
}  // namespace kvc::eval
