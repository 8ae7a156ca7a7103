#pragma once
// Texts that are generated, shown while they grow.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/stop_texts.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc::chat {

// What is told of a token as soon as it is known.
enum class TokenFormat {
  kNothing,
  kText,       // its text, whole characters at a time
  kJsonLines,  // {"prompt": I, "token_id": ID, "text": TEXT} and an end of line; the rest of a text
               // that was held back comes at its end, without an id
};

// One or several texts, token by token, up to a stop text.
class TokenOutput {
 public:
  using Sink = std::function<void(std::string_view)>;

  // The tokenizer must outlive the object. Throws kUsage for an empty stop text.
  TokenOutput(const Tokenizer& tokenizer,
              const std::vector<std::string>& stops,
              size_t texts,
              TokenFormat format,
              Sink sink);

  // Takes a token of text i; false: a stop text has come, and the text ends
  // (runtime::GenerateOptions::on_token).
  [[nodiscard]] bool Take(size_t i, int32_t id);
  // Tells what was held back of every text.
  void Finish();
  // Returns text i, of which `ids` are all tokens: up to the stop text, else what they decode to.
  [[nodiscard]] std::string Text(size_t i, std::span<const int32_t> ids) const;

 private:
  struct Growing {
    StoppedStream stream;
    std::string text;
  };
  void Tell(size_t i, const int32_t* id, const std::string& piece);

  const Tokenizer& tokenizer_;
  std::vector<Growing> texts_;
  TokenFormat format_;
  Sink sink_;
};

}  // namespace kvc::chat
