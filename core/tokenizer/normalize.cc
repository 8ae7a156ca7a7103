#include "core/tokenizer/normalize.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/tokenizer/base64.h"
#include "core/tokenizer/charsmap.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/pretok.h"

namespace kvc::tokenizer {
namespace {

class Chain final : public Normalizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  [[nodiscard]] std::string Apply(std::string text, bool& starts) const override {
    for (const auto& step : steps_) text = step->Apply(std::move(text), starts);
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  [[nodiscard]] std::string Apply(std::string text, bool& /*starts*/) const override {
    return text.empty() ? text : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  [[nodiscard]] std::string Apply(std::string text, bool& starts) const override {
    std::string replaced;
    replaced.reserve(text.size());
    size_t done = 0;
    RegexScanner(pattern_).ForEachMatch(text, [&](ByteRange match) {
      if (match.begin == 0 && MovesStart(text, match.end)) starts = false;
      replaced.append(text, done, match.begin - done) += content_;
      done = match.end;
    });
    return replaced.append(text, done);
  }

 private:
  // What replaces the text up to `end` stands, for tokenizers, where the last of the replaced
  // characters stood.
  [[nodiscard]] bool MovesStart(std::string_view text, size_t end) const {
    size_t first = 0;
    if (end > 0) (void)NextCodePoint(text, first);
    return content_.empty() ? end > 0 : end > first;
  }

  Regex pattern_;
  std::string content_;
};

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  [[nodiscard]] std::string Apply(std::string text, bool& /*starts*/) const override {
    return NormalizeUnicode(text, form_);
  }

 private:
  NormalForm form_;
};

class Lowercase final : public Normalizer {
 public:
  [[nodiscard]] std::string Apply(std::string text, bool& /*starts*/) const override {
    return ToLower(text);
  }
};

// Removes white space from the ends of the text.
class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  [[nodiscard]] std::string Apply(std::string text, bool& starts) const override {
    const size_t begin = left_ ? SpaceEnd(text, 0) : 0;
    if (begin > 0) starts = false;
    const size_t end = right_ ? std::max(begin, SpaceBegin(text, text.size())) : text.size();
    return text.substr(begin, end - begin);
  }

 private:
  bool left_;
  bool right_;
};

// Returns the characters for which `removed` is false; clears `starts` where the first is removed.
template <class Removed>
std::string Without(std::string_view text, const Removed& removed, bool& starts) {
  std::string rest;
  rest.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const bool first = position == 0;
    const char32_t c = NextCodePoint(text, position);
    if (!removed(c)) {
      AppendUtf8(c, rest);
    } else if (first) {
      starts = false;
    }
  }
  return rest;
}

class StripAccents final : public Normalizer {
 public:
  [[nodiscard]] std::string Apply(std::string text, bool& starts) const override {
    return Without(text, IsMark, starts);
  }
};

struct BertOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

// The clean-up of BERT: control characters are removed, white space becomes a space, ideographs
// stand apart, marks are removed after decomposition, capitals become small.
class BertNormalizer final : public Normalizer {
 public:
  explicit BertNormalizer(BertOptions options) : options_(options) {}
  [[nodiscard]] std::string Apply(std::string text, bool& starts) const override {
    if (options_.clean_text) text = Cleaned(text, starts);
    if (options_.handle_chinese_chars) text = WithIdeographsApart(text);
    if (options_.strip_accents) {
      text = Without(NormalizeUnicode(text, NormalForm::kNfd), IsNonSpacingMark, starts);
    }
    return options_.lowercase ? ToLower(text) : text;
  }

 private:
  static bool IsLineOrTab(char32_t c) { return c == '\t' || c == '\n' || c == '\r'; }
  static std::string Cleaned(std::string_view text, bool& starts) {
    const auto removed = [](char32_t c) {
      return c == 0 || c == kReplacementCharacter || (!IsLineOrTab(c) && IsOther(c));
    };
    const std::string rest = Without(text, removed, starts);
    std::string cleaned;
    for (size_t position = 0; position < rest.size();) {
      const char32_t c = NextCodePoint(rest, position);
      AppendUtf8(IsLineOrTab(c) || IsSpace(c) ? U' ' : c, cleaned);
    }
    return cleaned;
  }
  static std::string WithIdeographsApart(std::string_view text) {
    std::string apart;
    for (size_t position = 0; position < text.size();) {
      const char32_t c = NextCodePoint(text, position);
      if (IsIdeograph(c)) apart += ' ';
      AppendUtf8(c, apart);
      if (IsIdeograph(c)) apart += ' ';
    }
    return apart;
  }
  static bool IsIdeograph(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
  }

  BertOptions options_;
};

// Writes every byte as its character of a byte-level vocabulary.
class ByteLevel final : public Normalizer {
 public:
  [[nodiscard]] std::string Apply(std::string text, bool& /*starts*/) const override {
    std::string written;
    for (const char byte : text)
      AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), written);
    return written;
  }
};

class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(Charsmap charsmap) : charsmap_(std::move(charsmap)) {}
  // What is left counts as the start of the text even where the first character is removed: so
  // does tokenizers.
  [[nodiscard]] std::string Apply(std::string text, bool& /*starts*/) const override {
    return charsmap_.Apply(text);
  }

 private:
  Charsmap charsmap_;
};

std::unique_ptr<Normalizer> ParseBert(const Json& json, const std::string& origin) {
  BertOptions options;
  options.clean_text = GetBool(json, "clean_text", origin, true);
  options.handle_chinese_chars = GetBool(json, "handle_chinese_chars", origin, true);
  options.lowercase = GetBool(json, "lowercase", origin, true);
  options.strip_accents = GetBool(json, "strip_accents", origin, options.lowercase);
  return std::make_unique<BertNormalizer>(options);
}

std::unique_ptr<Normalizer> ParseOne(const Json& json,
                                     const std::string& type,
                                     const std::string& origin) {
  if (type == "Prepend") return std::make_unique<Prepend>(GetString(json, "prepend", origin));
  if (type == "Replace") {
    return std::make_unique<Replace>(ParsePattern(json, origin),
                                     GetString(json, "content", origin));
  }
  if (type == "NFC") return std::make_unique<UnicodeForm>(NormalForm::kNfc);
  if (type == "NFD") return std::make_unique<UnicodeForm>(NormalForm::kNfd);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(NormalForm::kNfkc);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(NormalForm::kNfkd);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip") {
    return std::make_unique<Strip>(GetBool(json, "strip_left", origin, true),
                                   GetBool(json, "strip_right", origin, true));
  }
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "BertNormalizer") return ParseBert(json, origin);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "Precompiled") {
    const std::string where = origin + ": precompiled_charsmap";
    return MakePrecompiled(DecodeBase64(GetString(json, "precompiled_charsmap", origin), where),
                           where);
  }
  KVC_THROW(kUnsupported, "{}: normalizer \"{}\" is not supported", origin, type);
}

}  // namespace

std::unique_ptr<Normalizer> ParseNormalizer(const Json& json, const std::string& origin) {
  if (json.is_null()) return nullptr;
  return std::make_unique<Chain>(ParseComponents<Normalizer>(
      json, "normalizers", origin, [&](const Json& component, const std::string& type) {
        return ParseOne(component, type, origin);
      }));
}

std::unique_ptr<Normalizer> MakePrecompiled(std::string_view charsmap, const std::string& origin) {
  return std::make_unique<Precompiled>(Charsmap(charsmap, origin));
}

std::unique_ptr<Normalizer> MakeReplace(Regex pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}

std::unique_ptr<Normalizer> MakeChain(std::vector<std::unique_ptr<Normalizer>> steps) {
  return std::make_unique<Chain>(std::move(steps));
}

std::unique_ptr<Normalizer> MakeUnicodeForm(NormalForm form) {
  return std::make_unique<UnicodeForm>(form);
}

}  // namespace kvc::tokenizer
