#pragma once
// Where the values of a JSON text stand in it, for messages about one of them.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace kvc {

class JsonLines {
 public:
  // `text` is JSON (ParseJson has taken it); of a key that comes twice, the first counts.
  explicit JsonLines(std::string_view text);

  // Returns the line, counted from 1, of the value at a JSON pointer (RFC 6901: "/stages/0/name"),
  // of its key where it has one; for a pointer to nothing, or far inside, that of the last value on
  // the way to it that is known.
  [[nodiscard]] int64_t LineOf(std::string pointer) const;

 private:
  std::map<std::string, int64_t> lines_;  // pointer -> line
};

// Returns the pointer to an element of what `pointer` points to.
[[nodiscard]] std::string JsonPointer(const std::string& pointer, std::string_view key);
[[nodiscard]] std::string JsonPointer(const std::string& pointer, int64_t index);

}  // namespace kvc
