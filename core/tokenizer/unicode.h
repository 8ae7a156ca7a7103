#pragma once
// Unicode for the tokenizers: code points, character classes and normalization forms.

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc::tokenizer {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Returns the code point at text[position] and moves `position` past it. `text` must be valid UTF-8
// and `position` at the start of a character, below text.size().
[[nodiscard]] char32_t NextCodePoint(std::string_view text, size_t& position);
// The bytes, 1 to 4, of the character that starts with `lead` in valid UTF-8.
[[nodiscard]] size_t CharacterBytes(char lead);
void AppendUtf8(char32_t code_point, std::string& text);

// Turns any bytes into valid UTF-8: each maximal part of a broken sequence becomes one U+FFFD
// (Unicode 3.9, "substitution of maximal subparts", like Rust's from_utf8_lossy and Python's
// errors="replace").
[[nodiscard]] std::string ToUtf8Lossy(std::string_view bytes);
[[nodiscard]] bool IsUtf8(std::string_view bytes);

// True for characters with the property White_Space.
[[nodiscard]] bool IsSpace(char32_t code_point);
// True for the characters of \w in Unicode regular expressions (UTS 18): Alphabetic, Mark,
// Decimal_Number, Connector_Punctuation, Join_Control.
[[nodiscard]] bool IsWord(char32_t code_point);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// The normal form of `text`, which must be valid UTF-8. Takes linear time but for the sorting of
// runs of combining marks.
[[nodiscard]] std::string NormalizeUnicode(std::string_view text, NormalForm form);

}  // namespace kvc::tokenizer
