#pragma once
// Characters as Python's str sees them. Published metrics are Python code, and what they call a
// word, a digit or a small letter decides a score. Properties are utf8proc's.

#include <string>
#include <string_view>

namespace kvc::tokenizer {

// str.isspace(), which str.split() separates words by: White_Space and U+001C to U+001F.
[[nodiscard]] bool IsPythonSpace(char32_t c);
// \w of the module re: str.isalnum(), and the underscore.
[[nodiscard]] bool IsPythonWord(char32_t c);
// \d of the module re: the decimal digits of all scripts.
[[nodiscard]] bool IsPythonDigit(char32_t c);

// str.lower(): simple lower case, and the two places where that is not enough, U+0130 (two
// characters) and the sigma at the end of a word.
[[nodiscard]] std::u32string PythonLower(std::string_view text);

// The code points of `text`; U+FFFD where it is not valid UTF-8.
[[nodiscard]] std::u32string CodePoints(std::string_view text);

}  // namespace kvc::tokenizer
