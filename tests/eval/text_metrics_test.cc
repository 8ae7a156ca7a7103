#include "eval/tasks/text_metrics.h"

#include <gtest/gtest.h>

namespace kvc::eval {
namespace {

TEST(TextMetrics, QuestionF1) {
  EXPECT_DOUBLE_EQ(QuestionF1("The Eiffel Tower.", "eiffel tower"), 1.0);
  // Two of three words said, two of four meant.
  EXPECT_NEAR(QuestionF1("red blue green", "red, blue; white black"),
              2.0 * (2.0 / 3) * 0.5 / (2.0 / 3 + 0.5), 1e-12);
  // Multiplicity: one "no" is shared.
  EXPECT_NEAR(QuestionF1("no no", "no"), 2.0 * 0.5 / 1.5, 1e-12);
  EXPECT_EQ(QuestionF1("", "word"), 0.0);
  EXPECT_EQ(QuestionF1("the a", "the"), 0.0);
}

// From the PyPI package rouge 1.0.1: Rouge().get_scores([answer], [truth])[0]["rouge-l"]["f"].
TEST(TextMetrics, RougeLIsThePackages) {
  EXPECT_NEAR(
      RougeL("the cat sat on the mat. It was happy", "a cat sat on a mat. It was very happy."),
      0.823529406782007, 1e-12);
  EXPECT_NEAR(RougeL("one two three. four five. ", "five four three two one. one two"),
              0.5454545404958678, 1e-12);
  EXPECT_NEAR(RougeL("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"), 0.6153846106508877,
              1e-12);
  EXPECT_NEAR(RougeL("a b c d e f a b", "b a c e d f b a."), 0.6666666616666668, 1e-12);
  EXPECT_EQ(RougeL("nothing alike", "entirely different words"), 0.0);
  EXPECT_EQ(RougeL("", "words"), 0.0);
}

TEST(TextMetrics, ClassScore) {
  const std::vector<std::string> classes = {"Animal", "City", "Other location", "Other"};
  EXPECT_EQ(ClassScore(" City", "City", classes), 1.0);
  EXPECT_EQ(ClassScore("City or Animal", "City", classes), 0.5);
  EXPECT_EQ(ClassScore("Animal", "City", classes), 0.0);
  // "Other" is part of the truth's name.
  EXPECT_EQ(ClassScore("Other location", "Other location", classes), 1.0);
  EXPECT_EQ(ClassScore("", "City", classes), 0.0);
}

TEST(TextMetrics, NumberScore) {
  EXPECT_EQ(NumberScore("Paragraph 12", "Paragraph 12"), 1.0);
  EXPECT_EQ(NumberScore("2, 12", "Paragraph 12"), 0.5);
  EXPECT_EQ(NumberScore("none", "7"), 0.0);
  EXPECT_EQ(NumbersIn("a12b003 4"), (std::vector<std::string>{"12", "003", "4"}));
}

// Ratios of rapidfuzz 3: 91.67, 51.16, 66.67, rounded.
TEST(TextMetrics, CodeSimilarity) {
  EXPECT_DOUBLE_EQ(CodeSimilarity("return x + 1", "return y + 1"), 0.92);
  EXPECT_DOUBLE_EQ(CodeSimilarity("for i in range(10):", "for (i = 0; i < 10; i++)"), 0.51);
  EXPECT_DOUBLE_EQ(CodeSimilarity("abc", "abd"), 0.67);
  EXPECT_DOUBLE_EQ(CodeSimilarity("\n# comment\n```\nabc\nlater", "abc"), 1.0);
  EXPECT_EQ(CodeSimilarity("# nothing", "abc"), 0.0);
  EXPECT_EQ(CodeSimilarity("", "abc"), 0.0);
}

// Values of LongBench's metrics.py (qa_f1_score, rouge_score, code_sim_score) in Python 3.11, the
// ROUGE package 1.0.1 and fuzz.ratio.
TEST(TextMetrics, UnicodeIsPythons) {
  // str.split() takes a no-break space, an ideographic space and U+001F.
  EXPECT_DOUBLE_EQ(QuestionF1("red blue", "red\u00a0blue"), 1.0);
  EXPECT_DOUBLE_EQ(QuestionF1("red blue", "red\u3000blue"), 1.0);
  EXPECT_DOUBLE_EQ(QuestionF1("red blue",
                              "red\x1f"
                              "blue"),
                   1.0);
  // str.lower()
  EXPECT_DOUBLE_EQ(QuestionF1("\u00c9COLE \u041c\u041e\u0421\u041a\u0412\u0410",
                              "\u00e9cole \u043c\u043e\u0441\u043a\u0432\u0430"),
                   1.0);
  EXPECT_DOUBLE_EQ(QuestionF1("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"), 1.0);
  EXPECT_DOUBLE_EQ(QuestionF1("\u0130", "i\u0307"), 1.0);
  // \b stands between a letter and a quotation mark that is not ASCII, and not before an accent.
  EXPECT_DOUBLE_EQ(QuestionF1("\u201cthe cat\u201d", "\u201c cat\u201d"), 1.0);
  EXPECT_EQ(QuestionF1("\u00e0", "a"), 0.0);
  EXPECT_EQ(QuestionF1("the\u00b2", "\u00b2"), 0.0);
  EXPECT_NEAR(RougeL("one\u00a0two three", "one two three"), 1.0, 1e-8);
  // 2 * 2 / (2 + 6) by characters; 0.40 by bytes.
  EXPECT_DOUBLE_EQ(CodeSimilarity("ab", "ab\u65e5\u65e5\u65e5\u65e5"), 0.5);
  // round(12.5) is 12.
  EXPECT_DOUBLE_EQ(CodeSimilarity("axxxxxxx", "ayyyyyyy"), 0.12);
  EXPECT_EQ(NumbersIn("\u0661\u0662 x3"), (std::vector<std::string>{"\u0661\u0662", "3"}));
}

}  // namespace
}  // namespace kvc::eval
