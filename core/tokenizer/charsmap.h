#pragma once
// SentencePiece's table of normalizations, "Precompiled" of tokenizer.json and precompiled_charsmap
// of tokenizer.model: the number of bytes of a double-array trie (32 bits, little-endian), the trie
// (Darts-clone's units of 32 bits), then the replacements, each ended by a null byte.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvc::tokenizer {

class Charsmap {
 public:
  // Throws kBadInput, naming `origin`, for a table that is truncated or whose replacements are not
  // UTF-8. Its trie may be anything: a walk ends where it would leave it.
  Charsmap(std::string_view bytes, const std::string& origin);

  // The text with its grapheme clusters replaced, as in Hugging Face's tokenizers: a cluster of at
  // most five bytes by the replacement of the shortest key with which it begins; without one, and
  // in a longer cluster, each character so. `text` is valid UTF-8, and so is the result.
  [[nodiscard]] std::string Apply(std::string_view text) const;

 private:
  [[nodiscard]] std::optional<std::string_view> Replacement(std::string_view part) const;
  void AppendCluster(std::string_view cluster, std::string& text) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace kvc::tokenizer
