#pragma once
// Pre-tokenizers of tokenizer.json, which cut a normalized text into pieces; the model merges
// within a piece, never across pieces. Supported types:
//   Sequence, Split (String or Regex; every behavior; invert), ByteLevel, Digits, Metaspace,
//   Whitespace, WhitespaceSplit, Punctuation, CharDelimiterSplit

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/regex.h"

namespace kvc::tokenizer {

// A text and the pieces into which it is cut.
struct Pieces {
  std::string text;               // valid UTF-8
  std::vector<ByteRange> ranges;  // of `text`, ascending, none empty
  // True when the first range begins where the original text begins, for Metaspace's prepend_scheme
  // "first". False after an added token.
  bool starts_text = false;
};

// One step of pre-tokenization.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(Pieces& pieces) const = 0;
};

// Parses the pre-tokenizer; null gives nullptr. Throws kUnsupported naming a type that is not
// listed above, kBadInput for a component that is broken.
// `add_prefix_space` (none: what the component says) replaces that of every ByteLevel.
[[nodiscard]] std::unique_ptr<PreTokenizer> ParsePreTokenizer(
    const Json& json, const std::string& origin, std::optional<bool> add_prefix_space = {});

// Makes GPT-2's pre-tokenizer: it splits by GPT-2's regular expression (with `use_regex`), then
// writes every byte as one printable character.
[[nodiscard]] std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex);

// Makes the pre-tokenizer that splits by `expression`, isolating matches, then writes every byte as
// one printable character, as Qwen2's.
[[nodiscard]] std::unique_ptr<PreTokenizer> MakeByteLevelSplit(std::string_view expression,
                                                               bool add_prefix_space);
// Makes Metaspace with U+2581 and without a cut at each, and a split that isolates the matches of
// an expression. core/tokenizer/sentencepiece.cc needs them.
enum class PrependScheme { kAlways, kFirst, kNever };
[[nodiscard]] std::unique_ptr<PreTokenizer> MakeMetaspace(PrependScheme scheme);
[[nodiscard]] std::unique_ptr<PreTokenizer> MakeIsolatingSplit(Regex expression);
[[nodiscard]] std::unique_ptr<PreTokenizer> MakeChain(
    std::vector<std::unique_ptr<PreTokenizer>> steps);

// The character that stands for a byte in a byte-level vocabulary (GPT-2's bytes_to_unicode):
// printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up.
[[nodiscard]] char32_t ByteLevelCharacter(uint8_t byte);
// The byte for which a character stands; -1 for a character that stands for no byte.
[[nodiscard]] int32_t ByteLevelByte(char32_t character);

}  // namespace kvc::tokenizer
