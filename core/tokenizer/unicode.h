#pragma once
// Unicode for the tokenizers: code points, character classes and normalization forms.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace kvc::tokenizer {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Returns the code point at text[position] and moves `position` past it. `text` must be valid UTF-8
// and `position` at the start of a character, below text.size().
[[nodiscard]] char32_t NextCodePoint(std::string_view text, size_t& position);
// The bytes, 1 to 4, of the character that starts with `lead` in valid UTF-8.
[[nodiscard]] size_t CharacterBytes(char lead);
// The number of characters of a valid text.
[[nodiscard]] size_t CountCharacters(std::string_view text);
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

// The start of the white space that ends at byte `end` of `text`, and the end of that which begins
// at byte `begin`.
[[nodiscard]] size_t SpaceBegin(std::string_view text, size_t end);
[[nodiscard]] size_t SpaceEnd(std::string_view text, size_t begin);
// The start of the character that ends at byte `end` > 0 of `text`.
[[nodiscard]] size_t CharacterBefore(std::string_view text, size_t end);

// True for the categories "Other" (control, format, surrogate, private use, not assigned) and
// "nonspacing mark".
[[nodiscard]] bool IsOther(char32_t code_point);
[[nodiscard]] bool IsNonSpacingMark(char32_t code_point);
// True for combining marks: the categories Mn, Mc and Me.
[[nodiscard]] bool IsMark(char32_t code_point);
// The text in lower case, a character at a time, whatever stands around it: U+0130 becomes two
// characters, a capital sigma is never final.
[[nodiscard]] std::string ToLower(std::string_view text);
// Calls `found` for each extended grapheme cluster of `text` (UAX 29), in order.
void ForEachGrapheme(std::string_view text, const std::function<void(std::string_view)>& found);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// The normal form of `text`, which must be valid UTF-8. Takes linear time but for the sorting of
// runs of combining marks.
[[nodiscard]] std::string NormalizeUnicode(std::string_view text, NormalForm form);

// The token "<0xHH>" that stands for a byte in vocabularies with byte fallback.
[[nodiscard]] std::string ByteToken(uint8_t byte);

}  // namespace kvc::tokenizer
