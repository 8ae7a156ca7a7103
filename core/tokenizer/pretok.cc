#include "core/tokenizer/pretok.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The ways to treat a match (the delimiter) and the text between two matches.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior ParseBehavior(const std::string& name, const std::string& origin) {
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  KVC_THROW(kUnsupported, "{}: behavior \"{}\" is not supported", origin, name);
}

struct Part {
  ByteRange range;
  bool is_match = false;
};

// Joins neighbours in `parts`, which cover a piece without gaps.
void Join(Behavior behavior, std::vector<Part>& parts) {
  if (behavior == Behavior::kRemoved) {
    std::erase_if(parts, [](const Part& part) { return part.is_match; });
    return;
  }
  if (behavior == Behavior::kIsolated) return;
  // "Merged with next" is "merged with previous", seen from the end.
  const bool backwards = behavior == Behavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  bool previous_match = false;
  for (const Part& part : parts) {
    const bool joins = behavior == Behavior::kContiguous ? part.is_match == previous_match
                                                         : part.is_match && !previous_match;
    if (joins && !joined.empty()) {
      ByteRange& last = joined.back().range;
      last = {std::min(last.begin, part.range.begin), std::max(last.end, part.range.end)};
    } else {
      joined.push_back(part);
    }
    previous_match = part.is_match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  parts = std::move(joined);
}

class Split final : public PreTokenizer {
 public:
  Split(Regex pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void Apply(Pieces& pieces) const override {
    const RegexScanner scanner(pattern_);
    std::vector<ByteRange> ranges;
    ranges.reserve(pieces.ranges.size());
    std::vector<Part> parts;
    for (const ByteRange& range : pieces.ranges) {
      Cut(scanner, pieces.text, range, parts);
      Join(behavior_, parts);
      for (const Part& part : parts) {
        if (part.range.end > part.range.begin) ranges.push_back(part.range);
      }
    }
    pieces.starts_text = pieces.starts_text && !ranges.empty() &&
                         ranges.front().begin == pieces.ranges.front().begin;
    pieces.ranges = std::move(ranges);
  }

 private:
  void Cut(const RegexScanner& scanner,
           std::string_view text,
           ByteRange range,
           std::vector<Part>& parts) const {
    parts.clear();
    size_t done = range.begin;
    scanner.ForEachMatch(text.substr(range.begin, range.end - range.begin), [&](ByteRange match) {
      const ByteRange here{range.begin + match.begin, range.begin + match.end};
      if (here.begin > done) parts.push_back({{done, here.begin}, invert_});
      parts.push_back({here, !invert_});
      done = here.end;
    });
    if (done < range.end) parts.push_back({{done, range.end}, invert_});
  }

  Regex pattern_;
  Behavior behavior_;
  bool invert_;
};

// Rewrites each piece into a new text with `write(piece, index, text)`.
template <class Write>
void Rewrite(Pieces& pieces, const Write& write) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.text.size() / 4);
  for (size_t i = 0; i < pieces.ranges.size(); ++i) {
    ByteRange& range = pieces.ranges[i];
    const size_t begin = text.size();
    write(std::string_view(pieces.text).substr(range.begin, range.end - range.begin), i, text);
    range = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

struct ByteCharacter {
  std::array<char, 2> bytes{};  // U+0021 to U+0143: one or two
  uint8_t length = 0;
};

std::array<ByteCharacter, 256> MakeByteCharacters() {
  std::array<ByteCharacter, 256> table{};
  for (size_t byte = 0; byte < table.size(); ++byte) {
    std::string character;
    AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), character);
    std::copy(character.begin(), character.end(), table[byte].bytes.begin());
    table[byte].length = static_cast<uint8_t>(character.size());
  }
  return table;
}

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex) : add_prefix_space_(add_prefix_space) {
    if (use_regex) {
      split_.emplace(Regex(kGpt2Expression, "ByteLevel"), Behavior::kIsolated, false);
    }
  }

  void Apply(Pieces& pieces) const override {
    if (add_prefix_space_) {
      Rewrite(pieces, [](std::string_view piece, size_t, std::string& text) {
        if (!piece.starts_with(' ')) text += ' ';
        text += piece;
      });
    }
    if (split_) split_->Apply(pieces);
    Rewrite(pieces, [this](std::string_view piece, size_t, std::string& text) {
      for (const char byte : piece) {
        const ByteCharacter& character = characters_[static_cast<uint8_t>(byte)];
        text.append(character.bytes.data(), character.length);
      }
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Split> split_;
  std::array<ByteCharacter, 256> characters_ = MakeByteCharacters();
};

// Turns spaces into `replacement` (U+2581), prepends one more, and begins a piece at each.
class Metaspace final : public PreTokenizer {
 public:
  Metaspace(const std::string& replacement, PrependScheme scheme, bool split)
      : replacement_(replacement), scheme_(scheme) {
    if (split) {
      split_.emplace(Regex::Literal(replacement, "Metaspace"), Behavior::kMergedWithNext, false);
    }
  }

  void Apply(Pieces& pieces) const override {
    const bool starts_text = pieces.starts_text;
    Rewrite(pieces, [&](std::string_view piece, size_t index, std::string& text) {
      const bool wanted = scheme_ == PrependScheme::kAlways ||
                          (scheme_ == PrependScheme::kFirst && index == 0 && starts_text);
      if (wanted && !piece.starts_with(' ') && !piece.starts_with(replacement_)) {
        text += replacement_;
      }
      for (const char c : piece) {
        if (c == ' ') {
          text += replacement_;
        } else {
          text += c;
        }
      }
    });
    if (split_) split_->Apply(pieces);
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  std::optional<Split> split_;
};

class Chain final : public PreTokenizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void Apply(Pieces& pieces) const override {
    for (const auto& step : steps_) step->Apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

std::unique_ptr<PreTokenizer> MakeSplit(std::string_view expression,
                                        Behavior behavior,
                                        bool invert,
                                        const std::string& origin) {
  return std::make_unique<Split>(Regex(expression, origin), behavior, invert);
}

std::unique_ptr<PreTokenizer> ParseMetaspace(const Json& json, const std::string& origin) {
  const std::string replacement = GetString(json, "replacement", origin, "\u2581");
  KVC_CHECK(!replacement.empty() && replacement.size() == CharacterBytes(replacement[0]), kBadInput,
            "{}: replacement: expected one character, got \"{}\"", origin, replacement);
  // Files from before tokenizers 0.14 say only whether a space is prepended.
  const bool add_prefix_space = GetBool(json, "add_prefix_space", origin, true);
  const std::string scheme =
      GetString(json, "prepend_scheme", origin, add_prefix_space ? "always" : "never");
  KVC_CHECK(add_prefix_space || scheme == "never", kBadInput,
            "{}: prepend_scheme: expected \"never\" with add_prefix_space false, got \"{}\"",
            origin, scheme);
  PrependScheme parsed = PrependScheme::kAlways;
  if (scheme == "first") {
    parsed = PrependScheme::kFirst;
  } else if (scheme == "never") {
    parsed = PrependScheme::kNever;
  } else {
    KVC_CHECK(scheme == "always", kUnsupported, "{}: prepend_scheme \"{}\" is not supported",
              origin, scheme);
  }
  return std::make_unique<Metaspace>(replacement, parsed, GetBool(json, "split", origin, true));
}

// Makes \w+|[^\w\s]+ of Rust's regular expressions, whose \w is that of UTS 18 instead of
// Oniguruma's.
std::unique_ptr<PreTokenizer> ParseWhitespace(const std::string& origin) {
  const std::string word =
      R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149})"
      R"(\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
  return MakeSplit("[" + word + "]+|[^" + word + "\\s]+", Behavior::kRemoved, true, origin);
}

std::unique_ptr<PreTokenizer> ParseOne(const Json& json,
                                       const std::string& type,
                                       const std::string& origin,
                                       std::optional<bool> add_prefix_space) {
  if (type == "ByteLevel") {
    const bool own = GetBool(json, "add_prefix_space", origin, true);
    return MakeByteLevel(add_prefix_space.value_or(own), GetBool(json, "use_regex", origin, true));
  }
  if (type == "Split") {
    return std::make_unique<Split>(ParsePattern(json, origin),
                                   ParseBehavior(GetString(json, "behavior", origin), origin),
                                   GetBool(json, "invert", origin, false));
  }
  if (type == "Digits") {
    const bool individual = GetBool(json, "individual_digits", origin, false);
    return MakeSplit("\\p{N}", individual ? Behavior::kIsolated : Behavior::kContiguous, false,
                     origin);
  }
  if (type == "Metaspace") return ParseMetaspace(json, origin);
  if (type == "Whitespace") return ParseWhitespace(origin);
  if (type == "WhitespaceSplit") return MakeSplit("\\s", Behavior::kRemoved, false, origin);
  if (type == "Punctuation") {  // Unicode's and all of ASCII's, which has symbols among them
    return MakeSplit(R"([\p{P}!-/:-@\[-`{-~])",
                     ParseBehavior(GetString(json, "behavior", origin, "Isolated"), origin), false,
                     origin);
  }
  if (type == "CharDelimiterSplit") {
    return std::make_unique<Split>(Regex::Literal(GetString(json, "delimiter", origin), origin),
                                   Behavior::kRemoved, false);
  }
  KVC_THROW(kUnsupported, "{}: pre-tokenizer \"{}\" is not supported", origin, type);
}

}  // namespace

std::unique_ptr<PreTokenizer> ParsePreTokenizer(const Json& json,
                                                const std::string& origin,
                                                std::optional<bool> add_prefix_space) {
  if (json.is_null()) return nullptr;
  return std::make_unique<Chain>(ParseComponents<PreTokenizer>(
      json, "pretokenizers", origin, [&](const Json& component, const std::string& type) {
        return ParseOne(component, type, origin, add_prefix_space);
      }));
}

std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex) {
  return std::make_unique<ByteLevel>(add_prefix_space, use_regex);
}

std::unique_ptr<PreTokenizer> MakeByteLevelSplit(std::string_view expression,
                                                 bool add_prefix_space) {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(MakeSplit(expression, Behavior::kIsolated, false, "byte-level split"));
  steps.push_back(MakeByteLevel(add_prefix_space, false));
  return std::make_unique<Chain>(std::move(steps));
}

std::unique_ptr<PreTokenizer> MakeMetaspace(PrependScheme scheme) {
  return std::make_unique<Metaspace>("\u2581", scheme, false);
}

std::unique_ptr<PreTokenizer> MakeIsolatingSplit(Regex expression) {
  return std::make_unique<Split>(std::move(expression), Behavior::kIsolated, false);
}

std::unique_ptr<PreTokenizer> MakeChain(std::vector<std::unique_ptr<PreTokenizer>> steps) {
  return std::make_unique<Chain>(std::move(steps));
}

char32_t ByteLevelCharacter(uint8_t byte) {
  // Not printable, in ascending order: 0-32, 127-160, 173.
  if (byte <= 32) return 256U + byte;
  if (byte >= 127 && byte <= 160) return 256U + 33U + (byte - 127U);
  if (byte == 173) return 256U + 33U + 34U;
  return byte;
}

int32_t ByteLevelByte(char32_t character) {
  if (character >= 256 && character < 256 + 33) return static_cast<int32_t>(character - 256);
  if (character >= 289 && character < 289 + 34) return static_cast<int32_t>(character - 289 + 127);
  if (character == 323) return 173;
  const bool printable = (character >= 33 && character <= 126) ||
                         (character >= 161 && character <= 255 && character != 173);
  return printable ? static_cast<int32_t>(character) : -1;
}

}  // namespace kvc::tokenizer
