#pragma once
// Normalizers of tokenizer.json, which rewrite a text before it is split. Supported types:
//   Sequence, Prepend (an empty text stays empty), Replace (String or Regex), NFC, NFD, NFKC, NFKD

#include <memory>
#include <string>

#include "core/io/json_fwd.h"

namespace kvc::tokenizer {

// One step of normalization.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8, and so is the result.
  [[nodiscard]] virtual std::string Apply(std::string text) const = 0;
};

// Parses the normalizer; null gives nullptr. Throws kUnsupported naming a type that is not listed
// above, kBadInput for a component that is broken.
[[nodiscard]] std::unique_ptr<Normalizer> ParseNormalizer(const Json& json,
                                                          const std::string& origin);

}  // namespace kvc::tokenizer
