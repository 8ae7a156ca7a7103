#pragma once
// Normalizers of tokenizer.json: what happens to a text before it is split.
//   Sequence, Prepend (nothing is put before an empty text), Replace (String or Regex),
//   NFC, NFD, NFKC, NFKD

#include <memory>
#include <string>

#include "core/io/json_fwd.h"

namespace kvc::tokenizer {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8, and so is the result.
  [[nodiscard]] virtual std::string Apply(std::string text) const = 0;
};

// null gives nullptr. Throws kUnsupported naming a type that is not listed above, kBadInput.
[[nodiscard]] std::unique_ptr<Normalizer> ParseNormalizer(const Json& json,
                                                          const std::string& origin);

}  // namespace kvc::tokenizer
