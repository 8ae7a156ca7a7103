#pragma once
// A conversation with a bundle: every turn goes onto the cache that is there, so that what was said
// is read once, and the budget holds however long it gets.
//
// The cache holds the tokens that were generated, as they were: thoughts of a model that thinks,
// and an answer that was cut. transformers' apply_chat_template writes a conversation anew each
// time, where a template may leave such things out, or move the system prompt.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/chat_template.h"

#include "core/base/progress.h"
#include "runtime/generator.h"

namespace kvc::chat {

struct ConversationOptions {
  std::optional<std::string> system;  // none: the template's own
  std::vector<std::string> stops;     // texts that end an answer
  // Of every answer; turn i draws from seed + i. on_token is not used.
  runtime::GenerateOptions generate;
  // Asked after every token of an answer: true, once, when it shall end. None: never.
  std::function<bool()> interrupted = {};
};

// What ended an answer.
enum class ReplyEnd { kStop, kStopText, kLength, kContext, kInterrupted };
[[nodiscard]] std::string_view ReplyEndName(ReplyEnd end);  // "stop", "stop-text", ...

struct Reply {
  std::string text;
  ReplyEnd end = ReplyEnd::kStop;
  int64_t prompt_tokens = 0;               // of this turn
  runtime::GenerateResult generated = {};  // one output
};

class Conversation {
 public:
  // Hears the answer in pieces of whole characters.
  using Listener = std::function<void(std::string_view)>;

  // Session and tokenizer must outlive it. Throws as ForTokenizer does.
  Conversation(runtime::Session& session,
               const Tokenizer& tokenizer,
               const ChatTemplate& chat,
               ConversationOptions options);

  // Says something and returns the answer. Throws kBadInput for text that is not UTF-8 and for more
  // than the model's context has room for; the conversation is then as before. Throws what
  // generating throws; after that only Clear helps.
  Reply Say(const std::string& user, const Listener& listener, Progress& progress);
  // Begins anew, with an empty cache.
  void Clear();

  // Return the answers so far, the tokens in the cache, and its bytes; zeros before the first turn.
  [[nodiscard]] int64_t turns() const { return turns_; }
  [[nodiscard]] int64_t tokens() const;
  [[nodiscard]] runtime::CacheCounters cache() const;

 private:
  [[nodiscard]] std::vector<int32_t> NextIds(const std::string& user) const;

  runtime::Session& session_;
  const Tokenizer& tokenizer_;
  ChatTemplate chat_;
  ConversationOptions options_;
  std::unique_ptr<runtime::Sequence> sequence_;  // null before the first turn
  // The last token of an answer that ended without a stop token, which the cache does not hold yet.
  std::optional<int32_t> unread_;
  int64_t turns_ = 0;
};

}  // namespace kvc::chat
