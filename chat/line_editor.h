#pragma once
// Lines from the standard input: on a terminal edited with libedit, with a history, where kvc was
// built with it; elsewhere read as they come.

#include <memory>
#include <string>

#include "chat/chat_loop.h"

namespace kvc::chat {

// Returns the reader of standard input; `prompt` is shown on a terminal, in front of every line.
[[nodiscard]] std::unique_ptr<LineReader> MakeLineReader(const std::string& prompt);

}  // namespace kvc::chat
