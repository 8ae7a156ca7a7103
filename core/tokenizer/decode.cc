#include "core/tokenizer/decode.h"

#include <charconv>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/pretok.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

class Chain final : public Decoder {
 public:
  explicit Chain(std::vector<std::unique_ptr<Decoder>> steps) : steps_(std::move(steps)) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (const auto& step : steps_) step->Apply(tokens);
  }

 private:
  std::vector<std::unique_ptr<Decoder>> steps_;
};

class ByteLevel final : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      const size_t before = bytes.size();
      for (size_t at = 0; at < token.size();) {
        const int32_t byte = ByteLevelByte(NextCodePoint(token, at));
        if (byte < 0) {
          bytes.resize(before);
          bytes += token;
          break;
        }
        bytes += static_cast<char>(byte);
      }
    }
    tokens.assign(1, ToUtf8Lossy(bytes));
  }
};

// Turns <0xHH> into its byte; a run of them that is not UTF-8 becomes one U+FFFD for each.
class ByteFallback final : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::vector<std::string> decoded;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (IsUtf8(bytes)) {
        decoded.push_back(bytes);
      } else {
        decoded.insert(decoded.end(), bytes.size(), "\uFFFD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      const int32_t byte = ByteOf(token);
      if (byte >= 0) {
        bytes += static_cast<char>(byte);
      } else {
        flush();
        decoded.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(decoded);
  }

 private:
  static int32_t ByteOf(const std::string& token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    int32_t byte = 0;
    const char* end = token.data() + 5;
    const auto [stop, error] = std::from_chars(token.data() + 3, end, byte, 16);
    return error == std::errc() && stop == end && byte >= 0 ? byte : -1;
  }
};

class Fuse final : public Decoder {
 public:
  void Apply(std::vector<std::string>& tokens) const override {
    std::string text;
    for (const std::string& token : tokens) text += token;
    tokens.assign(1, std::move(text));
  }
};

// Turns the replacement into a space, or into nothing in the first token where encoding prepends
// one.
class Metaspace final : public Decoder {
 public:
  Metaspace(std::string replacement, bool prepends)
      : replacement_(std::move(replacement)), prepends_(prepends) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::string_view token = tokens[i];
      std::string text;
      for (size_t at = 0; at < token.size();) {
        const std::string_view character = token.substr(at, CharacterBytes(token[at]));
        at += character.size();
        if (character != replacement_) {
          text += character;
        } else if (i > 0 || !prepends_) {
          text += ' ';
        }
      }
      tokens[i] = std::move(text);
    }
  }

 private:
  std::string replacement_;
  bool prepends_;
};

class Replace final : public Decoder {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(std::vector<std::string>& tokens) const override {
    const RegexScanner scanner(pattern_);
    for (std::string& token : tokens) token = scanner.ReplaceAll(token, content_);
  }

 private:
  Regex pattern_;
  std::string content_;
};

// Removes up to `start` and `stop` characters `content` from the two ends of each token.
class Strip final : public Decoder {
 public:
  Strip(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void Apply(std::vector<std::string>& tokens) const override {
    for (std::string& token : tokens) {
      std::string_view left = token;
      for (int64_t i = 0; i < start_ && left.starts_with(content_); ++i) {
        left.remove_prefix(content_.size());
      }
      for (int64_t i = 0; i < stop_ && left.ends_with(content_); ++i) {
        left.remove_suffix(content_.size());
      }
      token = std::string(left);
    }
  }

 private:
  std::string content_;
  int64_t start_;
  int64_t stop_;
};

// The one character under `key`.
std::string Character(const Json& json, const char* key, const std::string& origin) {
  std::string character = GetString(json, key, origin);
  KVC_CHECK(!character.empty() && character.size() == CharacterBytes(character[0]), kBadInput,
            "{}: {}: expected one character, got \"{}\"", origin, key, character);
  return character;
}

std::unique_ptr<Decoder> ParseMetaspace(const Json& json, const std::string& origin) {
  const bool add_prefix_space = GetBool(json, "add_prefix_space", origin, true);
  const std::string scheme =
      GetString(json, "prepend_scheme", origin, add_prefix_space ? "always" : "never");
  return std::make_unique<Metaspace>(Character(json, "replacement", origin), scheme != "never");
}

std::unique_ptr<Decoder> ParseOne(const Json& json,
                                  const std::string& type,
                                  const std::string& origin) {
  if (type == "ByteLevel") return MakeByteLevelDecoder();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Metaspace") return ParseMetaspace(json, origin);
  if (type == "Replace") {
    return std::make_unique<Replace>(ParsePattern(json, origin),
                                     GetString(json, "content", origin));
  }
  if (type == "Strip") {
    return std::make_unique<Strip>(Character(json, "content", origin),
                                   GetInt(json, "start", origin), GetInt(json, "stop", origin));
  }
  KVC_THROW(kUnsupported, "{}: decoder \"{}\" is not supported", origin, type);
}

}  // namespace

std::unique_ptr<Decoder> ParseDecoder(const Json& json, const std::string& origin) {
  if (json.is_null()) return nullptr;
  return std::make_unique<Chain>(ParseComponents<Decoder>(
      json, "decoders", origin, [&](const Json& component, const std::string& type) {
        return ParseOne(component, type, origin);
      }));
}

std::unique_ptr<Decoder> MakeSentencePieceDecoder(bool byte_fallback, bool strips_prefix) {
  std::vector<std::unique_ptr<Decoder>> steps;
  steps.push_back(std::make_unique<Replace>(Regex::Literal("\u2581", "decoder"), " "));
  if (byte_fallback) steps.push_back(std::make_unique<ByteFallback>());
  if (byte_fallback || strips_prefix) steps.push_back(std::make_unique<Fuse>());
  if (strips_prefix) steps.push_back(std::make_unique<Strip>(" ", 1, 0));
  return std::make_unique<Chain>(std::move(steps));
}

std::unique_ptr<Decoder> MakeByteLevelDecoder() { return std::make_unique<ByteLevel>(); }

}  // namespace kvc::tokenizer
