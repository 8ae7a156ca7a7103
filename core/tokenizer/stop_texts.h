#pragma once
// Texts that end a generation.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tokenizer/text_stream.h"

namespace kvc {

// Looks for the first of some texts in a text that comes in pieces of whole characters, as
// TextStream makes them: the one that is complete first, of two with one end the longer. What may
// be the beginning of one is held back until it is certain, and returned characters are whole. The
// result does not depend on the pieces.
class StopTexts {
 public:
  // Throws kUsage for an empty text.
  explicit StopTexts(std::vector<std::string> stops);

  // Takes the next piece; returns what is certainly in front of any stop text.
  [[nodiscard]] std::string Push(std::string_view piece);
  // Returns what was held back, at the end of a text without a stop text.
  [[nodiscard]] std::string Finish();
  // True once a stop text was there; nothing behind its beginning is returned.
  [[nodiscard]] bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

// The text of tokens that come one by one, up to the first stop text.
class StoppedStream {
 public:
  // The tokenizer must outlive the object. Throws kUsage for an empty stop text.
  StoppedStream(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : stream_(tokenizer), stops_(std::move(stops)) {}

  // Takes a token; returns the text that is certain since the last one.
  [[nodiscard]] std::string Push(int32_t id) { return stops_.Push(stream_.Push(id)); }
  // Returns what was held back, at the end of the tokens. A stop text may come with the last bytes.
  [[nodiscard]] std::string Finish() {
    const std::string certain = stops_.Push(stream_.Finish());
    return certain + stops_.Finish();
  }
  // True once a stop text was there; nothing is returned behind it.
  [[nodiscard]] bool stopped() const { return stops_.found(); }

 private:
  TextStream stream_;
  StopTexts stops_;
};

}  // namespace kvc
