// The translation of regular expressions from Oniguruma (Ruby syntax) to PCRE2; see regex.h.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/regex_sets.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr int kMaxClassDepth = 32;

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
    CloseOptions();
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
    std::string opening = "(";
    if (At("(?")) {
      opening.clear();
      for (const char* known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
        if (At(known)) opening = known;
      }
      if (opening.empty()) return OpenOptions();
    }
    at_ += opening.size();
    if (opening == "(") opening = "(?:";  // nothing refers to captures
    Open(opening, false);
  }

  // (?i:...) and (?i), which reaches to the end of the group that it stands in: Ruby's a(?i)b|c is
  // a(?i:b|c). Its m is PCRE2's s.
  void OpenOptions() {
    const size_t end = in_.find_first_not_of("im-", at_ + 2);
    const char behind = end == std::string_view::npos ? '\0' : in_[end];
    const std::string_view flags = in_.substr(at_ + 2, end - at_ - 2);
    const bool known =
        !flags.empty() && flags.find('-') == flags.rfind('-') && !flags.ends_with('-');
    if (!known || (behind != ':' && behind != ')')) Refuse("a group of this kind");
    std::string opening = "(?";
    for (const char flag : flags) opening += flag == 'm' ? 's' : flag;
    at_ = end + 1;
    Open(opening + ':', behind == ')');
  }

  void Open(const std::string& opening, bool by_option) {
    groups_.push_back({out_.size(), by_option});
    out_ += opening;
    atom_.reset();
  }
  // Closes the groups that options have opened within the innermost one.
  void CloseOptions() {
    while (!groups_.empty() && groups_.back().by_option) {
      groups_.pop_back();
      out_ += ')';
    }
  }
  void CloseGroup() {
    CloseOptions();
    if (groups_.empty()) Refuse("an unmatched \")\"");
    atom_ = groups_.back().begin;
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

  // A class as an expression that matches one character. PCRE2 has no classes within classes: their
  // union becomes an alternative, [a&&b] a look ahead, and the complement of either another.
  std::string CharacterClass(int depth = 0) {
    if (depth == kMaxClassDepth) Refuse("a class nested so deep");
    ++at_;
    const bool negated = At("^");
    if (negated) ++at_;
    if (At("]")) Refuse("an empty class");
    std::vector<std::string> parts;
    bool simple = true;
    parts.push_back(ClassUnion(depth, simple));
    while (At("&&")) {
      at_ += 2;
      parts.push_back(ClassUnion(depth, simple));
    }
    if (at_ == in_.size()) Refuse("an unclosed class");
    ++at_;
    if (parts.size() == 1 && simple) return (negated ? "[^" : "[") + parts[0] + ']';
    std::string text;
    for (size_t i = 0; i < parts.size(); ++i) {
      text += i + 1 < parts.size() ? "(?=" + parts[i] + ")" : parts[i];
    }
    return negated ? "(?:(?!" + text + ")(?s:.))" : "(?:" + text + ")";
  }

  // The members up to "]" or "&&": bare when they are the whole class and none is a class (`simple`
  // stays true), else as an expression.
  std::string ClassUnion(int depth, bool& simple) {
    std::string members;
    std::vector<std::string> classes;
    while (at_ < in_.size() && in_[at_] != ']' && !At("&&")) {
      if (At("[:")) {
        members += PosixClass();
      } else if (At("[")) {
        classes.push_back(CharacterClass(depth + 1));
      } else if (At("\\W")) {
        classes.push_back("[^" + std::string(kWord) + "]");
        at_ += 2;
      } else if (At("\\")) {
        members += Escape(true);
      } else {
        const std::string_view character = in_.substr(at_, CharacterBytes(in_[at_]));
        members += character;
        at_ += character.size();
      }
    }
    if (members.empty() && classes.empty()) Refuse("an empty class");
    if (classes.empty() && simple && !At("&&")) return members;
    simple = false;
    std::string text = members.empty() ? "" : "[" + members + "]";
    for (const std::string& inner : classes) text += (text.empty() ? "" : "|") + inner;
    return "(?:" + text + ")";
  }

  // [:name:] within a class.
  std::string PosixClass() {
    for (const auto& [name, members] : kPosixClasses) {
      if (!At(name)) continue;
      at_ += name.size();
      return std::string(members);
    }
    Refuse("a class of this name");
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
      case 'h':
        return Set("0-9a-fA-F", in_class);
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
      case 'H':
        return "[^0-9a-fA-F]";
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
  struct Group {
    size_t begin = 0;        // in out_
    bool by_option = false;  // opened by (?i): it ends with the group around it
  };
  std::vector<Group> groups_;  // the open ones
};

}  // namespace

std::string TranslateRegex(std::string_view expression, const std::string& origin) {
  KVC_CHECK(IsUtf8(expression), kBadInput, "{}: the regular expression is not UTF-8", origin);
  return Translator(expression, origin).Run();
}

}  // namespace kvc::tokenizer
