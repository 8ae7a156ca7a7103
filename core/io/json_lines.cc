#include "core/io/json_lines.h"

#include <algorithm>
#include <vector>

#include "core/io/json.h"

namespace kvc {
namespace {

// Values deeper than this have the lines of what they stand in: their pointers would take the
// square of the depth in memory.
constexpr size_t kDeepest = 16;

// An object or array that the scan is inside.
struct Level {
  bool object = false;
  bool wants_key = false;
  int64_t index = 0;
  std::string key;
  std::string pointer;
};

// Returns the end of the string that begins at text[at], behind its quote.
size_t StringEnd(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

}  // namespace

JsonLines::JsonLines(std::string_view text) {
  std::vector<Level> levels;
  int64_t line = 1;
  const auto pointer = [&] {
    if (levels.empty()) return std::string();
    const Level& level = levels.back();
    return level.object ? JsonPointer(level.pointer, level.key)
                        : JsonPointer(level.pointer, level.index);
  };
  const auto found = [&] {
    if (levels.size() <= kDeepest) lines_.emplace(pointer(), line);
  };
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (c == '"') {
      const size_t end = StringEnd(text, i);
      if (!levels.empty() && levels.back().wants_key) {
        levels.back().key = Json::parse(text.substr(i, end - i)).get<std::string>();
        levels.back().wants_key = false;
      }
      found();
      i = end;
      continue;
    }
    if (c == '{' || c == '[') {
      found();
      levels.push_back({c == '{', c == '{', 0, "", levels.size() < kDeepest ? pointer() : ""});
    } else if (c == '}' || c == ']') {
      levels.pop_back();
    } else if (c == ',') {
      ++levels.back().index;
      levels.back().wants_key = levels.back().object;
    } else if (c != ':' && c != ' ' && c != '\t' && c != '\r' && c != '\n') {
      found();  // a number, true, false or null
    }
    ++i;
  }
}

int64_t JsonLines::LineOf(std::string pointer) const {
  for (;;) {
    const auto found = lines_.find(pointer);
    if (found != lines_.end()) return found->second;
    if (pointer.empty()) return 1;
    pointer.resize(pointer.rfind('/'));
  }
}

std::string JsonPointer(const std::string& pointer, std::string_view key) {
  std::string text = pointer + '/';
  for (const char c : key) {
    if (c == '~') text += "~0";
    if (c == '/') text += "~1";
    if (c != '~' && c != '/') text += c;
  }
  return text;
}

std::string JsonPointer(const std::string& pointer, int64_t index) {
  return pointer + '/' + std::to_string(index);
}

}  // namespace kvc
