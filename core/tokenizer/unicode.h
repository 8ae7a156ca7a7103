#pragma once
// What the tokenizers need of Unicode: code points, character classes and normalization forms.

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc::tokenizer {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Code point at `text[position]`, and moves `position` behind it. `text` must be valid UTF-8 and
// `position` at the start of a character, below text.size().
[[nodiscard]] char32_t NextCodePoint(std::string_view text, size_t& position);
// Bytes of the character that starts with `lead` in valid UTF-8: 1 to 4.
[[nodiscard]] size_t CharacterBytes(char lead);
void AppendUtf8(char32_t code_point, std::string& text);

// Any bytes as valid UTF-8: each maximal part of a broken sequence becomes one U+FFFD (Unicode
// 3.9, "substitution of maximal subparts"; what Rust's from_utf8_lossy and Python's
// errors="replace" do).
[[nodiscard]] std::string ToUtf8Lossy(std::string_view bytes);
[[nodiscard]] bool IsUtf8(std::string_view bytes);

// The property White_Space.
[[nodiscard]] bool IsSpace(char32_t code_point);
// What \w means in Unicode regular expressions (UTS 18): Alphabetic, Mark, Decimal_Number,
// Connector_Punctuation, Join_Control.
[[nodiscard]] bool IsWord(char32_t code_point);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// `text` must be valid UTF-8. Time is linear but for the sorting of runs of combining marks.
[[nodiscard]] std::string NormalizeUnicode(std::string_view text, NormalForm form);

}  // namespace kvc::tokenizer
