#pragma once
// Lines of the standard input without editing.

#include <memory>
#include <string>

#include "chat/chat_loop.h"

namespace kvc::chat {

// Returns the reader that MakeLineReader gives where nothing is edited; `prompt` may be empty.
[[nodiscard]] std::unique_ptr<LineReader> MakePlainLines(const std::string& prompt);

}  // namespace kvc::chat
