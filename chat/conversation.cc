#include "chat/conversation.h"

#include <algorithm>
#include <utility>

#include "chat/token_output.h"

#include "core/base/error.h"
#include "core/io/text_input.h"

namespace kvc::chat {

std::string_view ReplyEndName(ReplyEnd end) {
  switch (end) {
    case ReplyEnd::kStop:
      return "stop";
    case ReplyEnd::kStopText:
      return "stop-text";
    case ReplyEnd::kLength:
      return "length";
    case ReplyEnd::kContext:
      return "context";
    case ReplyEnd::kInterrupted:
      return "interrupted";
  }
  KVC_THROW(kInternal, "reply: unknown end");
}

namespace {

ReplyEnd EndOf(const runtime::Generation& generation, bool interrupted) {
  if (generation.stopped) return ReplyEnd::kStop;
  if (generation.halted) return interrupted ? ReplyEnd::kInterrupted : ReplyEnd::kStopText;
  return generation.cut ? ReplyEnd::kContext : ReplyEnd::kLength;
}

}  // namespace

Conversation::Conversation(runtime::Session& session,
                           const Tokenizer& tokenizer,
                           const ChatTemplate& chat,
                           ConversationOptions options)
    : session_(session),
      tokenizer_(tokenizer),
      chat_(ForTokenizer(chat, tokenizer)),
      options_(std::move(options)) {
  options_.generate.stop_ids.push_back(*tokenizer.TokenId(chat_.end_of_turn));
  if (options_.system) CheckUtf8(*options_.system, "--system");
}

std::vector<int32_t> Conversation::NextIds(const std::string& user) const {
  if (sequence_ != nullptr) {
    std::vector<int32_t> ids;
    if (unread_) ids.push_back(*unread_);
    const auto next = tokenizer_.EncodeParts(RenderNextTurn(chat_, user));
    ids.insert(ids.end(), next.begin(), next.end());
    return ids;
  }
  std::vector<Message> messages;
  if (options_.system) messages.push_back({Role::kSystem, *options_.system});
  messages.push_back({Role::kUser, user});
  return tokenizer_.EncodeParts(RenderConversation(chat_, messages));
}

Reply Conversation::Say(const std::string& user, const Listener& listener, Progress& progress) {
  CheckUtf8(user, "message");
  const std::vector<int32_t> ids = NextIds(user);
  const int64_t room = session_.context_length() - tokens();
  KVC_CHECK(std::ssize(ids) <= room, kBadInput,
            "conversation: expected a message of at most {} tokens behind {}, got {}; begin a new "
            "one (/clear)",
            room, tokens(), ids.size());
  const bool first = sequence_ == nullptr;
  std::unique_ptr<runtime::Sequence> begun =
      first ? session_.NewSequence(options_.generate.sequence) : nullptr;
  runtime::Sequence& sequence = first ? *begun : *sequence_;
  const auto interrupted = [&] { return options_.interrupted && options_.interrupted(); };
  (void)interrupted();  // what came before the message is no wish to end its answer
  TokenOutput output(tokenizer_, options_.stops, 1, TokenFormat::kText, listener);
  bool ended = false;
  runtime::GenerateOptions generate = options_.generate;
  generate.seed += static_cast<uint64_t>(turns_);
  generate.on_token = [&](size_t i, int32_t id) {
    if (!output.Take(i, id)) return false;
    ended = interrupted();
    return !ended;
  };
  Reply reply;
  reply.prompt_tokens = std::ssize(ids);
  reply.generated = runtime::Generate(session_, sequence, ids, generate, progress);
  output.Finish();
  const runtime::Generation& generation = reply.generated.outputs[0];
  reply.text = output.Text(0, generation.ids);
  reply.end = EndOf(generation, ended);
  if (first) sequence_ = std::move(begun);
  unread_ = generation.stopped ? std::nullopt : std::optional<int32_t>(generation.last);
  ++turns_;
  return reply;
}

void Conversation::Clear() {
  sequence_.reset();
  unread_.reset();
  turns_ = 0;
}

int64_t Conversation::tokens() const { return sequence_ == nullptr ? 0 : sequence_->length(); }

runtime::CacheCounters Conversation::cache() const {
  return sequence_ == nullptr ? runtime::CacheCounters() : sequence_->counters();
}

}  // namespace kvc::chat
