// The parts of the tokenizers, each against a definition that shares no code with it.

#include <chrono>
#include <limits>
#include <random>
#include <span>

#include <gtest/gtest.h>

#include "core/tokenizer/bpe.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

// A vocabulary of the letters a to d and `count` random merges of what is there already.
struct RandomBpe {
  TokenList tokens;
  MergeList merges;

  RandomBpe(std::mt19937& random, size_t count) {
    for (const char* letter : {"a", "b", "c", "d"}) Add(letter);
    while (merges.size() < count) {
      const std::string left = tokens[random() % tokens.size()].first;
      const std::string right = tokens[random() % tokens.size()].first;
      if (left.size() + right.size() > 12) continue;
      merges.emplace_back(left, right);
      Add(left + right);
    }
  }
  void Add(const std::string& token) {
    for (const auto& known : tokens) {
      if (known.first == token) return;
    }
    tokens.emplace_back(token, static_cast<int64_t>(tokens.size()));
  }
};

// The definition: look through all neighbours for the best merge, apply it, start again.
std::vector<std::string> NaiveMerges(const std::string& word, const MergeList& merges) {
  std::vector<std::string> parts;
  for (const char letter : word) parts.emplace_back(1, letter);
  while (true) {
    size_t best_rank = std::numeric_limits<size_t>::max();
    size_t best = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t rank = merges.size(); rank-- > 0;) {  // the last of equal merges counts
        if (merges[rank] != std::pair(parts[i], parts[i + 1])) continue;
        if (rank < best_rank) {
          best_rank = rank;
          best = i;
        }
        break;
      }
    }
    if (best_rank == std::numeric_limits<size_t>::max()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, MergesAsDefined) {
  std::mt19937 random(7);
  for (int round = 0; round < 30; ++round) {
    const RandomBpe bpe(random, 40);
    const BpeModel model(Vocabulary(bpe.tokens, "test"), bpe.merges, {}, "test");
    BpeEncoder encoder(model);
    for (int i = 0; i < 30; ++i) {
      std::string word(random() % 40, 'a');
      for (char& letter : word) letter = static_cast<char>('a' + random() % 4);
      std::vector<int32_t> ids;
      encoder.Append(word, ids);
      std::vector<std::string> tokens;
      for (const int32_t id : ids) tokens.push_back(*model.vocabulary().Token(id));
      EXPECT_EQ(tokens, NaiveMerges(word, bpe.merges)) << word;
    }
  }
}

TEST(Bpe, LongWordsAreNotQuadratic) {
  const TokenList tokens = {{"a", 0}, {"aa", 1}, {"aaaa", 2}, {"aaaaaaaa", 3}};
  const MergeList merges = {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}};
  const BpeModel model(Vocabulary(tokens, "test"), merges, {}, "test");
  std::vector<int32_t> ids;
  const auto start = std::chrono::steady_clock::now();
  BpeEncoder(model).Append(std::string(1 << 20, 'a'), ids);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 17, 3));
  EXPECT_LT(seconds.count(), 60.0);  // n log n: well below 1 s; quadratic: hours
}

std::vector<std::string> Matches(const char* expression, std::string_view text) {
  const Regex regex(expression, "test");
  std::vector<std::string> found;
  RegexScanner(regex).ForEachMatch(text, [&](ByteRange match) {
    found.emplace_back(text.substr(match.begin, match.end - match.begin));
  });
  return found;
}

using Strings = std::vector<std::string>;

TEST(RegexTest, MatchesAsOniguruma) {
  EXPECT_EQ(Matches("\\s+", "a\u00a0\u2003b\u180ec\u0085\v."),
            (Strings{"\u00a0\u2003", "\u0085\v"}));
  EXPECT_EQ(Matches("a{1,2}+", "aaaaab"), (Strings{"aaaaa"}));
  EXPECT_EQ(Matches("a{2}?", "aaab"), (Strings{"aa", "", ""}));
  EXPECT_EQ(Matches("^.", "ab\ncd"), (Strings{"a", "c"}));
  EXPECT_EQ(Matches("x*", "axb"), (Strings{"", "x", ""}));
}

TEST(RegexTest, LongRunsOfSpaceNeedNoStack) {
  const std::string text = "a" + std::string(1 << 20, ' ') + "b";
  EXPECT_EQ(Matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", text),
            (Strings{std::string((1 << 20) - 1, ' '), " "}));
}

TEST(Unicode, BrokenSequencesBecomeReplacementCharacters) {
  EXPECT_EQ(ToUtf8Lossy("a\xffz"), "a\uFFFDz");
  EXPECT_EQ(ToUtf8Lossy("\xe4\xbd"), "\uFFFD");  // one for the maximal part
  EXPECT_EQ(ToUtf8Lossy("\xe4\xbd"
                        "a"),
            "\uFFFDa");
  EXPECT_EQ(ToUtf8Lossy("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate is no part at all
  EXPECT_EQ(ToUtf8Lossy("\xf0\x9f\x98\xf0\x9f\x98\x80"), "\uFFFD\U0001F600");
  EXPECT_EQ(ToUtf8Lossy("\xc0\xaf"), "\uFFFD\uFFFD");
  EXPECT_EQ(ToUtf8Lossy("\xf4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(Unicode, NormalForms) {
  const std::string text =
      "s\u0323\u0307 s\u0307\u0323 A\u030a \u212b \ufb01 \uac01 \u1100\u1161\u11a8";
  EXPECT_EQ(NormalizeUnicode(text, NormalForm::kNfc),
            "\u1e69 \u1e69 \u00c5 \u00c5 \ufb01 \uac01 \uac01");
  EXPECT_EQ(NormalizeUnicode(text, NormalForm::kNfkc),
            "\u1e69 \u1e69 \u00c5 \u00c5 fi \uac01 \uac01");
  EXPECT_EQ(NormalizeUnicode("\u1e69 \uac01", NormalForm::kNfd),
            "s\u0323\u0307 \u1100\u1161\u11a8");
}

TEST(Unicode, ManyMarksAreNotQuadratic) {
  std::string text = "a";  // classes 230 and 220 in turn: half of the marks must move
  std::string ordered = "a";
  constexpr int kPairs = 200000;
  for (int i = 0; i < kPairs; ++i) text += "\u033d\u0332";
  for (int i = 0; i < kPairs; ++i) ordered += "\u0332";
  for (int i = 0; i < kPairs; ++i) ordered += "\u033d";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(NormalizeUnicode(text, NormalForm::kNfc) == ordered);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 20.0);
}

TEST(Unicode, WordAndSpace) {
  for (const char32_t c : {U'a', U'_', U'9', U'\u0301', U'\u203f', U'\u24b6', U'\u4e2d'}) {
    EXPECT_TRUE(IsWord(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U'-', U' ', U'\u00b2', U'\u2460', U'\U0001F600'}) {
    EXPECT_FALSE(IsWord(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {U' ', U'\t', U'\u0085', U'\u00a0', U'\u3000'}) EXPECT_TRUE(IsSpace(c));
  for (const char32_t c : {U'\u180e', U'\u200b', U'\ufeff', U'\x1c'}) EXPECT_FALSE(IsSpace(c));
}

}  // namespace
}  // namespace kvc::tokenizer
