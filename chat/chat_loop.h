#pragma once
// The loop of a person's conversation: lines that are said, and commands between them.
//
//   /clear    begins anew, with an empty cache
//   /stats    what the cache takes, what it would take in full, and the speed
//   /help     the commands
//   /quit     ends, as the end of the input does
//
// A line that begins with two slashes is said with one; a line that ends in a backslash goes on in
// the next one.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "chat/conversation.h"

namespace kvc::chat {

// Where lines come from.
class LineReader {
 public:
  LineReader() = default;
  virtual ~LineReader() = default;
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Returns the next line without its end; none at the end of the input.
  [[nodiscard]] virtual std::optional<std::string> Read() = 0;
};

// Where a conversation is shown.
struct ChatScreen {
  Conversation::Listener text;                   // answers, piece by piece, and the end of each
  std::function<void(const std::string&)> note;  // a line about the conversation
};

struct ChatTurn {
  std::string user;
  Reply reply;
};

// Reads, says and shows until the input ends, and returns all turns. What the conversation cannot
// take (kBadInput, kUsage) becomes a note; other errors leave the loop.
std::vector<ChatTurn> RunChat(Conversation& conversation,
                              LineReader& lines,
                              const ChatScreen& screen,
                              Progress& progress);

// Returns one line: tokens a second, the bytes of the cache, and what the full one would take.
[[nodiscard]] std::string SpeedAndCacheLine(const runtime::GenerateResult& result);

}  // namespace kvc::chat
