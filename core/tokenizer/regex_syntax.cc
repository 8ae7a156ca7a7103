// The translation of regular expressions from Oniguruma (Ruby syntax) to PCRE2; see regex.h.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// Oniguruma's \w: letters, letter numbers, marks, decimal digits, connectors, enclosed letters, and
// those of the other numbers that are in Latin-1.
constexpr std::string_view kWord =
    R"(\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169})"
    R"(\x{1f170}-\x{1f189}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// Properties that have the same short name and meaning in both.
constexpr std::array<std::string_view, 37> kCategories = {
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",
    "Mc", "Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
    "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"};

bool IsCategory(std::string_view name) {
  for (const std::string_view category : kCategories) {
    if (name == category) return true;
  }
  return false;
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsAlphanumeric(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  Translator(std::string_view expression, const std::string& origin)
      : in_(expression), origin_(origin) {}

  std::string Run() {
    while (at_ < in_.size()) Item();
    if (!groups_.empty()) Refuse("an unclosed group");
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(std::string_view what) const {
    KVC_THROW(kUnsupported, "{}: {} at byte {} of the regular expression \"{}\" is not supported",
              origin_, what, at_, in_);
  }
  [[nodiscard]] bool At(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  void Item() {
    const char c = in_[at_];
    switch (c) {
      case '\\':
        Atom(Escape(false));
        return;
      case '[':
        Atom(CharacterClass());
        return;
      case '(':
        OpenGroup();
        return;
      case ')':
        CloseGroup();
        return;
      case '|':
        Separator("|");
        return;
      case '^':
        Separator("(?m:^)");
        return;
      case '$':
        Separator("(?m:$)");
        return;
      case '*':
      case '+':
      case '?':
        Repeat();
        return;
      case '{':
        Interval();
        return;
      default:
        break;
    }
    const std::string_view character = in_.substr(at_, CharacterBytes(c));
    at_ += character.size();
    const bool escape = c == ']' || c == '}' || c == '#';
    Atom((escape ? "\\" : "") + std::string(character));
  }

  // Writes an item that a quantifier may follow.
  void Atom(const std::string& text) {
    atom_ = out_.size();
    out_ += text;
  }
  // Writes an item that no quantifier may follow.
  void Separator(std::string_view text) {
    ++at_;
    out_ += text;
    atom_.reset();
  }

  void OpenGroup() {
    std::string_view opening = "(";
    if (At("(?")) {
      opening = {};
      for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"}) {
        if (At(known)) opening = known;
      }
      if (opening.empty()) Refuse("a group of this kind");
    }
    groups_.push_back(out_.size());
    out_ += opening == "(" ? "(?:" : opening;  // nothing refers to captures
    at_ += opening.size();
    atom_.reset();
  }
  void CloseGroup() {
    if (groups_.empty()) Refuse("an unmatched \")\"");
    atom_ = groups_.back();
    groups_.pop_back();
    out_ += ')';
    ++at_;
  }

  // * + ? with a lazy ? or a possessive + after it: the same in both.
  void Repeat() {
    if (!atom_) Refuse("a quantifier without target");
    out_ += in_[at_++];
    if (at_ < in_.size() && (in_[at_] == '?' || in_[at_] == '+')) out_ += in_[at_++];
    atom_.reset();
  }

  // {n} {n,} {n,m} {,m}; anything else is a literal brace.
  void Interval() {
    const size_t close = in_.find('}', at_);
    const std::string_view inside =
        close == std::string_view::npos ? "" : in_.substr(at_ + 1, close - at_ - 1);
    const size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma);
    const std::string_view high =
        comma == std::string_view::npos ? std::string_view{} : inside.substr(comma + 1);
    const std::string digits = std::string(low) + std::string(high);
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) {
      ++at_;
      Atom("\\{");
      return;
    }
    if (!atom_) Refuse("a quantifier without target");
    out_ += '{' + (low.empty() ? "0" : std::string(low));
    if (comma != std::string_view::npos) out_ += ',' + std::string(high);
    out_ += '}';
    at_ = close + 1;
    const char next = at_ < in_.size() ? in_[at_] : '\0';
    const bool exact = comma == std::string_view::npos;
    if (next == '+' || (next == '?' && exact)) {  // a second quantifier in Ruby
      out_.insert(*atom_, "(?:");
      out_ += ')';
      Repeat();
      return;
    }
    if (next == '?') {
      out_ += '?';
      ++at_;
    }
    atom_.reset();
  }

  std::string CharacterClass() {
    std::string text = "[";
    ++at_;
    if (At("^")) {
      text += '^';
      ++at_;
    }
    if (At("]")) Refuse("an empty class");
    while (at_ < in_.size() && in_[at_] != ']') {
      if (At("[")) Refuse("a class within a class");
      if (At("&&")) Refuse("an intersection of classes");
      if (At("\\")) {
        text += Escape(true);
        continue;
      }
      const std::string_view character = in_.substr(at_, CharacterBytes(in_[at_]));
      text += character;
      at_ += character.size();
    }
    if (at_ == in_.size()) Refuse("an unclosed class");
    ++at_;
    return text + ']';
  }

  static std::string Set(std::string_view members, bool in_class) {
    return in_class ? std::string(members) : "[" + std::string(members) + "]";
  }

  // Translates the escape at at_ and moves past it.
  std::string Escape(bool in_class) {
    if (at_ + 1 >= in_.size()) Refuse("a trailing backslash");
    const char c = in_[at_ + 1];
    if (c == 'p' || c == 'P') return Property();
    if (c == 'x' || c == 'u') return Hexadecimal();
    if (!IsAlphanumeric(c)) {
      const std::string_view character = in_.substr(at_ + 1, CharacterBytes(c));
      at_ += 1 + character.size();
      const bool plain = static_cast<uint8_t>(c) >= 0x80;
      return (plain ? "" : "\\") + std::string(character);
    }
    const std::optional<std::string> text = NamedEscape(c, in_class);
    if (!text) Refuse(std::string("\\") + c);
    at_ += 2;
    return *text;
  }

  static std::optional<std::string> NamedEscape(char c, bool in_class) {
    switch (c) {
      case 's':
        return Set(kSpace, in_class);
      case 'S':
        return Set(kNotSpace, in_class);
      case 'w':
        return Set(kWord, in_class);
      case 'd':
        return "\\p{Nd}";
      case 'D':
        return "\\P{Nd}";
      case 'v':
        return "\\x{b}";
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return std::string("\\") + c;
      default:
        break;
    }
    if (in_class) return std::nullopt;
    const std::string word = Set(kWord, false);
    switch (c) {
      case 'W':
        return "[^" + std::string(kWord) + "]";
      case 'b':
        return "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
      case 'B':
        return "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))";
      case 'A':
        return "\\A";
      case 'z':
        return "\\z";
      default:
        return std::nullopt;
    }
  }

  // \p{L} \p{^L} \P{L} \p{Han}
  std::string Property() {
    const size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) {
      Refuse("a property without braces");
    }
    bool negated = in_[at_ + 1] == 'P';
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (name.size() < 3 && !IsCategory(name)) Refuse("an unknown property");
    for (const char c : name) {
      if (!IsAlphanumeric(c) && c != '_') Refuse("an unknown property");
    }
    at_ = close + 1;
    return (negated ? "\\P{" : "\\p{") + std::string(IsCategory(name) ? "" : "sc:") +
           std::string(name) + "}";
  }

  // \xHH \x{H...} \uHHHH
  std::string Hexadecimal() {
    const bool braced = In(at_ + 2) == '{';
    const size_t begin = at_ + (braced ? 3 : 2);
    const size_t most = in_[at_ + 1] == 'u' ? 4 : (braced ? 8 : 2);
    size_t end = begin;
    while (end < begin + most && IsHex(In(end))) ++end;
    const bool complete = in_[at_ + 1] == 'u' ? !braced && end == begin + most : end > begin;
    if (!complete || (braced && In(end) != '}')) Refuse("a broken character code");
    const std::string_view digits = in_.substr(begin, end - begin);
    // \x80 and above without braces is a byte of UTF-8 in Oniguruma.
    if (most == 2 && digits.size() == 2 && digits[0] > '7') Refuse("a byte above \\x7f");
    at_ = end + (braced ? 1 : 0);
    return "\\x{" + std::string(digits) + "}";
  }
  [[nodiscard]] char In(size_t index) const { return index < in_.size() ? in_[index] : '\0'; }

  std::string_view in_;
  const std::string& origin_;
  size_t at_ = 0;
  std::string out_;
  std::optional<size_t> atom_;  // where in out_ the item begins that a quantifier would repeat
  std::vector<size_t> groups_;  // where in out_ the open groups begin
};

}  // namespace

std::string TranslateRegex(std::string_view expression, const std::string& origin) {
  KVC_CHECK(IsUtf8(expression), kBadInput, "{}: the regular expression is not UTF-8", origin);
  return Translator(expression, origin).Run();
}

}  // namespace kvc::tokenizer
