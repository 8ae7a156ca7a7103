#pragma once
// Oniguruma's sets of characters, written as members of a class of PCRE2.

#include <array>
#include <string_view>

namespace kvc::tokenizer {

// \s, \S and \w.
inline constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
inline constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// Oniguruma's \w: letters, letter numbers, marks, decimal digits, connectors, enclosed letters, and
// those of the other numbers that are in Latin-1.
inline constexpr std::string_view kWord =
    R"(\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169})"
    R"(\x{1f170}-\x{1f189}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// Properties that have the same short name and meaning in both.
inline constexpr std::array<std::string_view, 37> kCategories = {
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
    "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
    "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};

// Classes by name, which stand within another class.
struct PosixClassRow {
  std::string_view name;
  std::string_view members;
};
inline constexpr std::array<PosixClassRow, 8> kPosixClasses = {{
    {"[:digit:]", R"(\p{Nd})"},
    {"[:space:]", kSpace},
    {"[:word:]", kWord},
    {"[:alpha:]", R"(\p{Alphabetic})"},
    {"[:alnum:]", R"(\p{Alphabetic}\p{Nd})"},
    {"[:upper:]", R"(\p{Uppercase})"},
    {"[:lower:]", R"(\p{Lowercase})"},
    {"[:xdigit:]", "0-9a-fA-F"},
}};

}  // namespace kvc::tokenizer
