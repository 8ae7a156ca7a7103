#include "chat/chat_loop.h"

#include <fmt/format.h>

#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/sizes.h"

namespace kvc::chat {
namespace {

constexpr char kHelp[] =
    "/clear begins anew, /stats shows the cache, /quit ends; // says a line that begins with /, a "
    "\\ at the end continues a line";

std::string CacheText(const runtime::CacheCounters& cache) {
  return fmt::format("cache {} (allocated {}, peak {}), in full it would be {}",
                     FormatBytes(cache.logical_bytes), FormatBytes(cache.allocated_bytes),
                     FormatBytes(cache.peak_bytes), FormatBytes(cache.full_bytes));
}

std::string Stats(const Conversation& conversation, const std::vector<ChatTurn>& turns) {
  std::string text =
      fmt::format("{}, {}; {}", Counted(conversation.turns(), "turn"),
                  Counted(conversation.tokens(), "token"), CacheText(conversation.cache()));
  if (!turns.empty()) {
    const runtime::GenerateResult& last = turns.back().reply.generated;
    text += fmt::format("; last answer {:.1f} tokens/s, its message {:.1f} tokens/s",
                        last.DecodeRate(), last.PrefillRate());
  }
  return text;
}

// Returns a line with those that continue it.
std::optional<std::string> ReadMessage(LineReader& lines) {
  std::optional<std::string> message = lines.Read();
  while (message && message->ends_with('\\')) {
    message->back() = '\n';
    const std::optional<std::string> more = lines.Read();
    if (!more) break;
    *message += *more;
  }
  return message;
}

void Say(const std::string& user,
         Conversation& conversation,
         const ChatScreen& screen,
         Progress& progress,
         std::vector<ChatTurn>& turns) {
  try {
    turns.push_back({user, conversation.Say(user, screen.text, progress)});
    screen.text("\n");
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kBadInput && error.kind() != ErrorKind::kUsage) throw;
    screen.note(error.what());
    return;
  }
  const Reply& reply = turns.back().reply;
  if (reply.end != ReplyEnd::kStop && reply.end != ReplyEnd::kStopText) {
    screen.note(fmt::format("the answer was cut: {}", ReplyEndName(reply.end)));
  }
}

}  // namespace

std::vector<ChatTurn> RunChat(Conversation& conversation,
                              LineReader& lines,
                              const ChatScreen& screen,
                              Progress& progress) {
  std::vector<ChatTurn> turns;
  while (std::optional<std::string> line = ReadMessage(lines)) {
    if (line->starts_with("//")) {
      Say(line->substr(1), conversation, screen, progress, turns);
    } else if (!line->starts_with('/')) {
      if (line->find_first_not_of(" \t\r\n") == std::string::npos) continue;
      Say(*line, conversation, screen, progress, turns);
    } else if (*line == "/quit" || *line == "/exit") {
      break;
    } else if (*line == "/clear") {
      conversation.Clear();
      screen.note("a new conversation");
    } else if (*line == "/stats") {
      screen.note(Stats(conversation, turns));
    } else {
      screen.note(*line == "/help" ? kHelp : fmt::format("{}: unknown; {}", *line, kHelp));
    }
  }
  return turns;
}

std::string SpeedAndCacheLine(const runtime::GenerateResult& result) {
  return fmt::format("decode {:.1f} tokens/s, prefill {:.1f} tokens/s; {}", result.DecodeRate(),
                     result.PrefillRate(), CacheText(result.MeanCache()));
}

}  // namespace kvc::chat
