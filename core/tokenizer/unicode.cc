#include "core/tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

#include "core/base/error.h"

namespace kvc::tokenizer {
namespace {

struct Decoded {
  char32_t code_point = 0;
  size_t length = 0;  // bytes; of the maximal broken part when !valid
  bool valid = false;
};

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// The ranges of a second byte that keep a sequence well-formed (Unicode, table 3-7): no overlong
// forms, no surrogates, nothing above U+10FFFF.
bool SecondByteFits(uint8_t lead, uint8_t second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

// Decodes the sequence at the front of `bytes`, which must not be empty.
Decoded DecodeFront(std::string_view bytes) {
  const auto lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {lead, 1, true};
  if (lead < 0xC2 || lead > 0xF4) return {0, 1, false};
  const size_t need = CharacterBytes(bytes[0]);
  char32_t code_point = lead & (0x7FU >> need);
  for (size_t i = 1; i < need; ++i) {
    const bool fits =
        i < bytes.size() &&
        (i == 1 ? SecondByteFits(lead, static_cast<uint8_t>(bytes[1])) : IsContinuation(bytes[i]));
    if (!fits) return {0, i, false};
    code_point = (code_point << 6) | (static_cast<uint8_t>(bytes[i]) & 0x3FU);
  }
  return {code_point, need, true};
}

int32_t CombiningClass(int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Canonical ordering (Unicode 3.11, D109). utf8proc's own pass sorts by insertion, which a long
// run of marks would make quadratic; so decomposition, order and composition are called apart.
void OrderMarks(std::vector<int32_t>& points) {
  size_t begin = 0;
  while (begin < points.size()) {
    size_t end = begin;
    while (end < points.size() && CombiningClass(points[end]) != 0) ++end;
    if (end > begin + 1) {
      std::stable_sort(points.begin() + static_cast<ptrdiff_t>(begin),
                       points.begin() + static_cast<ptrdiff_t>(end),
                       [](int32_t a, int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    }
    begin = end + 1;
  }
}

// A limit below which every character is a starter and already in the form.
char32_t UnchangedBelow(NormalForm form) { return form == NormalForm::kNfc ? 0x300 : 0x80; }

bool IsUnchanged(std::string_view text, NormalForm form) {
  const char32_t limit = UnchangedBelow(form);
  size_t position = 0;
  while (position < text.size()) {
    if (static_cast<uint8_t>(text[position]) < 0x80) {
      ++position;
    } else if (NextCodePoint(text, position) >= limit) {
      return false;
    }
  }
  return true;
}

}  // namespace

size_t CharacterBytes(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

char32_t NextCodePoint(std::string_view text, size_t& position) {
  const size_t length = CharacterBytes(text[position]);
  const auto lead = static_cast<uint8_t>(text[position]);
  char32_t code_point = length == 1 ? lead : lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    code_point = (code_point << 6) | (static_cast<uint8_t>(text[position + i]) & 0x3FU);
  }
  position += length;
  return code_point;
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return !IsContinuation(byte); }));
}

void AppendUtf8(char32_t code_point, std::string& text) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto length = utf8proc_encode_char(static_cast<int32_t>(code_point), bytes.data());
  text.append(bytes.begin(), bytes.begin() + length);
}

std::string ToUtf8Lossy(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Decoded front = DecodeFront(bytes);
    if (front.valid) {
      text.append(bytes.substr(0, front.length));
    } else {
      AppendUtf8(kReplacementCharacter, text);
    }
    bytes.remove_prefix(front.length);
  }
  return text;
}

bool IsUtf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const Decoded front = DecodeFront(bytes);
    if (!front.valid) return false;
    bytes.remove_prefix(front.length);
  }
  return true;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsWord(char32_t c) {
  switch (utf8proc_category(static_cast<int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  // Join_Control, and the Alphabetic characters outside the categories above: enclosed letters.
  return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

size_t CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

size_t SpaceBegin(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = CharacterBefore(text, end);
    size_t at = begin;
    if (!IsSpace(NextCodePoint(text, at))) break;
    end = begin;
  }
  return end;
}

size_t SpaceEnd(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t at = begin;
    if (!IsSpace(NextCodePoint(text, at))) break;
    begin = at;
  }
  return begin;
}

bool IsOther(char32_t c) {
  switch (utf8proc_category(static_cast<int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
      return true;
    default:
      return false;
  }
}

bool IsNonSpacingMark(char32_t c) {
  return utf8proc_category(static_cast<int32_t>(c)) == UTF8PROC_CATEGORY_MN;
}

bool IsMark(char32_t c) {
  const utf8proc_category_t category = utf8proc_category(static_cast<int32_t>(c));
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

std::string ToLower(std::string_view text) {
  constexpr char32_t kDottedCapitalI = 0x130;  // the one character with two in lower case
  std::string lower;
  lower.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char32_t c = NextCodePoint(text, position);
    if (c == kDottedCapitalI) {
      lower += "i\u0307";
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c))), lower);
    }
  }
  return lower;
}

void ForEachGrapheme(std::string_view text, const std::function<void(std::string_view)>& found) {
  size_t begin = 0;
  int32_t before = 0;
  int32_t state = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t here = position;
    const auto c = static_cast<int32_t>(NextCodePoint(text, position));
    if (here > 0 && utf8proc_grapheme_break_stateful(before, c, &state)) {
      found(text.substr(begin, here - begin));
      begin = here;
    }
    before = c;
  }
  if (begin < text.size()) found(text.substr(begin));
}

std::string NormalizeUnicode(std::string_view text, NormalForm form) {
  if (IsUnchanged(text, form)) return std::string(text);
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const auto stable =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0));
  const auto decompose = static_cast<utf8proc_option_t>(stable | UTF8PROC_DECOMPOSE);
  std::vector<int32_t> points;
  points.reserve(text.size());
  std::array<utf8proc_int32_t, 32> parts{};  // the longest compatibility decomposition is 18
  for (size_t position = 0; position < text.size();) {
    const auto code_point = static_cast<int32_t>(NextCodePoint(text, position));
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(code_point, parts.data(),
                                static_cast<utf8proc_ssize_t>(parts.size()), decompose, &boundary);
    KVC_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()), kInternal,
              "Unicode normalization: {}", utf8proc_errmsg(count));
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  OrderMarks(points);
  if (compose) {
    const auto count =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                 static_cast<utf8proc_option_t>(stable | UTF8PROC_COMPOSE));
    points.resize(static_cast<size_t>(count));
  }
  std::string normalized;
  normalized.reserve(text.size());
  for (const int32_t point : points) AppendUtf8(static_cast<char32_t>(point), normalized);
  return normalized;
}

std::string ByteToken(uint8_t byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + '>';
}

}  // namespace kvc::tokenizer
