// A build without libedit.

#include "chat/line_editor.h"
#include "chat/plain_lines.h"
#include <unistd.h>

namespace kvc::chat {

std::unique_ptr<LineReader> MakeLineReader(const std::string& prompt,
                                           std::function<bool()> /*interrupted*/) {
  return MakePlainLines(isatty(STDIN_FILENO) == 1 ? prompt : "");
}

}  // namespace kvc::chat
