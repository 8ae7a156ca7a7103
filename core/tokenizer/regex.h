#pragma once
// Regular expressions of tokenizer.json. Hugging Face runs them with Oniguruma in Ruby's syntax;
// here PCRE2 runs a translation, so that both match the same text:
//   \s \w \d and their complements   Oniguruma's sets, spelled out (PCRE2's \s has U+180E, its \w
//                                    lacks marks and connectors)
//   ^ $                              line anchors, as always in Ruby
//   X{n,m}+  X{n}?  X{,m}            (?:X{n,m})+, (?:X{n})?, X{0,m}: no possessive or lazy forms
//   \p{Han}                          the script itself (PCRE2: also its script extensions)
//   \v \uHHHH \x{H..}                one character
//   [a[b]] [^a[b]] [a&&b] [[:alpha:]]  alternatives and look-aheads that match one character
//   a(?i)b|c  (?m:.)  \h              a(?i:b|c), (?s:.), a hexadecimal digit
// Constructs that mean something else in PCRE2 or have no counterpart (back references, named
// groups, the option x) are refused. Known difference: under (?i:...) Oniguruma also folds to
// several characters ("ss" matches U+00DF), PCRE2 does not; and [\w&&[^a]] has Latin-1's
// superscripts and fractions here, which Oniguruma's \w has everywhere else. No tokenizer in use
// depends on either. Properties are those of PCRE2, Unicode 14 with Debian 12's 10.42; tokenizers
// 0.23 has Unicode 16. Checked over all code points that 14 knows: no difference.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace kvc::tokenizer {

// The bytes begin .. end - 1 of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
};

// The PCRE2 form of an Oniguruma expression. Throws kUnsupported naming `origin`, the expression
// and what in it is not translated.
[[nodiscard]] std::string TranslateRegex(std::string_view expression, const std::string& origin);

// A compiled expression. Several threads may use one, each with a RegexScanner of its own.
class Regex {
 public:
  // Throws kUnsupported (see TranslateRegex), kBadInput when the expression does not compile.
  Regex(std::string_view expression, const std::string& origin);
  // An expression that matches `text` itself.
  static Regex Literal(std::string_view text, const std::string& origin);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

 private:
  friend class RegexScanner;
  struct Compiled;
  explicit Regex(std::unique_ptr<Compiled> compiled);
  static std::unique_ptr<Compiled> Compile(const std::string& pattern,
                                           bool literal,
                                           const std::string& origin);
  std::unique_ptr<Compiled> compiled_;
};

// Matches texts with one expression. It holds the working memory of one thread, so that many short
// texts are cheap. Borrows the expression, which must live longer.
class RegexScanner {
 public:
  explicit RegexScanner(const Regex& regex);
  ~RegexScanner();
  RegexScanner(const RegexScanner&) = delete;
  RegexScanner& operator=(const RegexScanner&) = delete;

  // Calls `found` for every match in `text` (valid UTF-8), from the left, without overlap. An empty
  // match right after the last match does not count, as with Rust's find_iter. Throws kBadInput
  // when matching takes more steps than PCRE2's limit (a pathological expression).
  void ForEachMatch(std::string_view text, const std::function<void(ByteRange)>& found) const;
  // `text` with every match replaced by `content`, taken literally.
  [[nodiscard]] std::string ReplaceAll(std::string_view text, std::string_view content) const;

 private:
  struct State;
  const Regex::Compiled& compiled_;
  std::unique_ptr<State> state_;
};

}  // namespace kvc::tokenizer
