#include "eval/tasks/text_metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>

#include "core/tokenizer/python_text.h"
#include "core/tokenizer/unicode.h"

namespace kvc::eval {
namespace {

using tokenizer::CodePoints;
using tokenizer::IsPythonDigit;
using tokenizer::IsPythonSpace;
using tokenizer::IsPythonWord;
using tokenizer::PythonLower;
using Words = std::vector<std::u32string>;

bool IsPunctuation(char32_t c) {
  return (c >= U'!' && c <= U'/') || (c >= U':' && c <= U'@') || (c >= U'[' && c <= U'`') ||
         (c >= U'{' && c <= U'~');
}

// str.split()
Words SplitWords(std::u32string_view text) {
  Words words;
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    while (i < text.size() && !IsPythonSpace(text[i])) ++i;
    if (i > begin) words.emplace_back(text.substr(begin, i - begin));
    ++i;
  }
  return words;
}

// re.sub(r"\b(a|an|the)\b", " ", text): an article may stand between signs that are no letters.
std::u32string WithoutArticles(std::u32string_view text) {
  std::u32string kept;
  size_t i = 0;
  while (i < text.size()) {
    const size_t begin = i;
    while (i < text.size() && IsPythonWord(text[i])) ++i;
    const std::u32string_view word = text.substr(begin, i - begin);
    const bool article = word == U"a" || word == U"an" || word == U"the";
    kept += article ? std::u32string_view(U" ") : word;
    if (i < text.size()) kept += text[i++];
  }
  return kept;
}

Words Normalised(std::string_view text) {
  std::u32string lower = PythonLower(text);
  std::erase_if(lower, IsPunctuation);
  return SplitWords(WithoutArticles(lower));
}

// Returns [n + 1][m + 1] lengths of the longest common subsequences of the first i and j elements.
template <class Sequence>
std::vector<std::vector<int32_t>> LcsTable(const Sequence& x, const Sequence& y) {
  std::vector<std::vector<int32_t>> table(x.size() + 1, std::vector<int32_t>(y.size() + 1, 0));
  for (size_t i = 1; i <= x.size(); ++i) {
    for (size_t j = 1; j <= y.size(); ++j) {
      table[i][j] = x[i - 1] == y[j - 1] ? table[i - 1][j - 1] + 1
                                         : std::max(table[i - 1][j], table[i][j - 1]);
    }
  }
  return table;
}

// Adds the words of one longest common subsequence; if there are several, the one that drops words
// of `y` first from the end.
void AddCommonWords(const Words& x, const Words& y, std::set<std::u32string>& common) {
  const auto table = LcsTable(x, y);
  size_t i = x.size();
  size_t j = y.size();
  while (i > 0 && j > 0) {
    if (x[i - 1] == y[j - 1]) {
      common.insert(x[--i]);
      --j;
    } else if (table[i - 1][j] > table[i][j - 1]) {
      --i;
    } else {
      --j;
    }
  }
}

// Returns the pieces between full stops. A piece of spaces only is one empty word, as in the
// package.
std::vector<Words> Sentences(std::string_view text) {
  const std::u32string points = CodePoints(text);
  std::u32string_view rest = points;
  std::vector<Words> sentences;
  while (!rest.empty()) {
    const size_t stop = rest.find(U'.');
    const std::u32string_view piece = rest.substr(0, stop);
    if (!piece.empty()) {
      sentences.push_back(SplitWords(piece));
      if (sentences.back().empty()) sentences.back().emplace_back();
    }
    rest = stop == std::u32string_view::npos ? std::u32string_view() : rest.substr(stop + 1);
  }
  return sentences;
}

size_t DistinctWords(const std::vector<Words>& sentences) {
  std::set<std::u32string> words;
  for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return words.size();
}

double HarmonicMean(double a, double b, double epsilon) {
  return a + b > 0.0 ? 2.0 * a * b / (a + b + epsilon) : 0.0;
}

}  // namespace

double QuestionF1(std::string_view answer, std::string_view truth) {
  const Words said = Normalised(answer);
  const Words meant = Normalised(truth);
  std::map<std::u32string, int64_t> left;
  for (const std::u32string& word : meant) ++left[word];
  int64_t common = 0;
  for (const std::u32string& word : said) {
    const auto entry = left.find(word);
    if (entry != left.end() && entry->second-- > 0) ++common;
  }
  if (common == 0) return 0.0;
  return HarmonicMean(static_cast<double>(common) / static_cast<double>(said.size()),
                      static_cast<double>(common) / static_cast<double>(meant.size()), 0.0);
}

double RougeL(std::string_view answer, std::string_view truth) {
  const auto said = Sentences(answer);
  const auto meant = Sentences(truth);
  if (said.empty() || meant.empty()) return 0.0;
  std::set<std::u32string> common;
  for (const Words& sentence : meant) {
    for (const Words& other : said) AddCommonWords(sentence, other, common);
  }
  const auto count = static_cast<double>(common.size());
  constexpr double kEpsilon = 1e-8;  // the package's
  return HarmonicMean(count / static_cast<double>(DistinctWords(said)),
                      count / static_cast<double>(DistinctWords(meant)), kEpsilon);
}

double ClassScore(std::string_view answer,
                  std::string_view truth,
                  const std::vector<std::string>& classes) {
  int64_t named = 0;
  bool right = false;
  for (const std::string& name : classes) {
    if (answer.find(name) == std::string_view::npos) continue;
    if (name != truth && truth.find(name) != std::string_view::npos) continue;
    ++named;
    right = right || name == truth;
  }
  return right ? 1.0 / static_cast<double>(named) : 0.0;
}

double NumberScore(std::string_view answer, std::string_view truth) {
  const std::vector<std::string> meant = NumbersIn(truth);
  const std::vector<std::string> said = NumbersIn(answer);
  if (meant.empty() || said.empty()) return 0.0;
  const auto right = std::count(said.begin(), said.end(), meant[0]);
  return static_cast<double>(right) / static_cast<double>(said.size());
}

double CodeSimilarity(std::string_view answer, std::string_view truth) {
  while (!answer.empty() && answer.front() == '\n') answer.remove_prefix(1);
  std::string_view line;
  while (!answer.empty()) {
    const size_t end = answer.find('\n');
    const std::string_view candidate = answer.substr(0, end);
    const auto holds = [&](std::string_view mark) {
      return candidate.find(mark) != std::string_view::npos;
    };
    if (!holds("`") && !holds("#") && !holds("//")) {
      line = candidate;
      break;
    }
    answer = end == std::string_view::npos ? std::string_view() : answer.substr(end + 1);
  }
  if (line.empty() || truth.empty()) return 0.0;
  const std::u32string code = CodePoints(line);
  const std::u32string meant = CodePoints(truth);
  const auto common = static_cast<double>(LcsTable(code, meant).back().back());
  // Python's round() takes a half to the even number, as nearbyint does.
  const double ratio = 2.0 * common / static_cast<double>(code.size() + meant.size());
  return std::nearbyint(100.0 * ratio) / 100.0;
}

std::vector<std::string> NumbersIn(std::string_view text) {
  std::vector<std::string> numbers;
  bool inside = false;
  for (const char32_t c : CodePoints(text)) {
    const bool digit = IsPythonDigit(c);
    if (digit && !inside) numbers.emplace_back();
    if (digit) tokenizer::AppendUtf8(c, numbers.back());
    inside = digit;
  }
  return numbers;
}

}  // namespace kvc::eval
