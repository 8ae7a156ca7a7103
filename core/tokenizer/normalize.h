#pragma once
// Normalizers of tokenizer.json, which rewrite a text before it is split. Supported types:
//   Sequence, Prepend (an empty text stays empty), Replace (String or Regex), NFC, NFD, NFKC, NFKD,
//   Lowercase, Strip, StripAccents (combining marks), BertNormalizer, ByteLevel, Precompiled

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {

// One step of normalization.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Returns the text rewritten; `text` is valid UTF-8, and so is the result. Sets `starts` to false
  // where the beginning of the text is removed, so that what is left begins behind it.
  [[nodiscard]] virtual std::string Apply(std::string text, bool& starts) const = 0;
};

// Parses the normalizer; null gives nullptr. Throws kUnsupported naming a type that is not listed
// above, kBadInput for a component that is broken.
[[nodiscard]] std::unique_ptr<Normalizer> ParseNormalizer(const Json& json,
                                                          const std::string& origin);

// Makes the steps that core/tokenizer/sentencepiece.cc needs: a table of normalizations
// (core/tokenizer/charsmap.h), a replacement of what an expression matches, and steps in order.
[[nodiscard]] std::unique_ptr<Normalizer> MakePrecompiled(std::string_view charsmap,
                                                          const std::string& origin);
[[nodiscard]] std::unique_ptr<Normalizer> MakeReplace(Regex pattern, std::string content);
[[nodiscard]] std::unique_ptr<Normalizer> MakeChain(std::vector<std::unique_ptr<Normalizer>> steps);
[[nodiscard]] std::unique_ptr<Normalizer> MakeUnicodeForm(NormalForm form);

}  // namespace kvc::tokenizer
