#pragma once
// Decoders of tokenizer.json: from the tokens' texts to the text.
//   Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace (String or Regex), Strip

#include <memory>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::tokenizer {

// The result is `tokens`, one after the other, when the last decoder is done.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual void Apply(std::vector<std::string>& tokens) const = 0;
};

// null gives nullptr. Throws kUnsupported naming a type that is not listed above, kBadInput.
[[nodiscard]] std::unique_ptr<Decoder> ParseDecoder(const Json& json, const std::string& origin);

// The inverse of MakeByteLevel's characters. A token with a character that stands for no byte is
// taken as it is; bytes that are no UTF-8 become U+FFFD.
[[nodiscard]] std::unique_ptr<Decoder> MakeByteLevelDecoder();

}  // namespace kvc::tokenizer
