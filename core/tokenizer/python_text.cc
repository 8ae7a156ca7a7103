#include "core/tokenizer/python_text.h"

#include <utf8proc.h>

#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

utf8proc_category_t CategoryOf(char32_t c) { return utf8proc_category(static_cast<int32_t>(c)); }

bool IsCased(char32_t c) {
  const auto category = CategoryOf(c);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

// Characters that stand inside a word without being its letters.
bool IsCaseIgnorable(char32_t c) {
  switch (CategoryOf(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == U'\'' || c == U'.' || c == U':' || c == 0xB7 || c == 0x2018 || c == 0x2019;
  }
}

// The sigma at `at` ends a word: a cased letter before it and none behind it (Unicode 3.13).
bool IsFinalSigma(const std::u32string& text, size_t at) {
  size_t before = at;
  while (before > 0 && IsCaseIgnorable(text[before - 1])) --before;
  if (before == 0 || !IsCased(text[before - 1])) return false;
  size_t behind = at + 1;
  while (behind < text.size() && IsCaseIgnorable(text[behind])) ++behind;
  return behind == text.size() || !IsCased(text[behind]);
}

}  // namespace

bool IsPythonSpace(char32_t c) { return IsSpace(c) || (c >= 0x1C && c <= 0x1F); }

bool IsPythonWord(char32_t c) {
  switch (CategoryOf(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return c == U'_';
  }
}

bool IsPythonDigit(char32_t c) { return CategoryOf(c) == UTF8PROC_CATEGORY_ND; }

std::u32string PythonLower(std::string_view text) {
  constexpr char32_t kDottedI = 0x130;
  constexpr char32_t kSigma = 0x3A3;
  constexpr char32_t kFinalSigma = 0x3C2;
  const std::u32string points = CodePoints(text);
  std::u32string lower;
  for (size_t i = 0; i < points.size(); ++i) {
    if (points[i] == kDottedI) {
      lower += U"i\u0307";
    } else if (points[i] == kSigma && IsFinalSigma(points, i)) {
      lower += kFinalSigma;
    } else {
      lower += static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(points[i])));
    }
  }
  return lower;
}

std::u32string CodePoints(std::string_view text) {
  const std::string valid = ToUtf8Lossy(text);
  std::u32string points;
  for (size_t position = 0; position < valid.size();) points += NextCodePoint(valid, position);
  return points;
}

}  // namespace kvc::tokenizer
