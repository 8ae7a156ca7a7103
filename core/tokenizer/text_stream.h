#pragma once
// Text of tokens that come one by one, for whoever shows a text while it is generated.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc {

// Turns ids into pieces of text that, put together, are Tokenizer::Decode of all of them. A token
// whose text ends inside a character is held back until the rest of the character has come, so
// every piece is UTF-8 in whole characters.
//
// What a token adds is found by decoding the last piece's tokens with it and without it, because
// the text of a token may depend on the one in front of it.
class TextStream {
 public:
  // The tokenizer must outlive the object.
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // Returns the text that is certain now that `id` has come, which may be none.
  [[nodiscard]] std::string Push(int32_t id);
  // Returns what was held back, with U+FFFD for bytes of an incomplete character. The stream may
  // then begin another text.
  [[nodiscard]] std::string Finish();

 private:
  // Returns what `text`, the decoded ids_, has beyond what was told.
  [[nodiscard]] std::string NewText(const std::string& text) const;

  const Tokenizer* tokenizer_;
  std::vector<int32_t> ids_;  // those of the last piece, then those that are held back
  size_t told_ = 0;           // of ids_
};

}  // namespace kvc
