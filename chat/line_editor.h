#pragma once
// Lines from the standard input: on a terminal edited with libedit, with a history, where kvc was
// built with it; elsewhere read as they come.

#include <functional>
#include <memory>
#include <string>

#include "chat/chat_loop.h"

namespace kvc::chat {

// Returns the reader of standard input; `prompt` is shown on a terminal, in front of every line.
// `interrupted` is asked when a signal arrives while a line is edited: where it returns true the
// line is dropped and the next one begins, else the input ends.
[[nodiscard]] std::unique_ptr<LineReader> MakeLineReader(const std::string& prompt,
                                                         std::function<bool()> interrupted);

}  // namespace kvc::chat
