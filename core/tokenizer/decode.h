#pragma once
// Decoders of tokenizer.json, which turn the texts of tokens into one text. Supported types:
//   Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace (String or Regex), Strip

#include <memory>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::tokenizer {

// One step of decoding. The text is the concatenation of the tokens after the last step.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual void Apply(std::vector<std::string>& tokens) const = 0;
};

// Parses the decoder; null gives nullptr. Throws kUnsupported naming a type that is not listed
// above, kBadInput for a component that is broken.
[[nodiscard]] std::unique_ptr<Decoder> ParseDecoder(const Json& json, const std::string& origin);

// Makes the inverse of MakeByteLevel. A token with a character that stands for no byte is taken as
// it is; bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::unique_ptr<Decoder> MakeByteLevelDecoder();

// Makes the decoder of a tokenizer.model: U+2581 becomes a space, <0xHH> (with `byte_fallback`) a
// byte, and with `strips_prefix` the text loses the space at its start.
[[nodiscard]] std::unique_ptr<Decoder> MakeSentencePieceDecoder(bool byte_fallback,
                                                                bool strips_prefix);

}  // namespace kvc::tokenizer
