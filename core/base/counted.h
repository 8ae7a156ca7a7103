#pragma once
// A count together with its noun.

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc {

// Returns "1 turn", "0 turns", "2 turns" for a noun whose plural ends in s.
[[nodiscard]] inline std::string Counted(int64_t count, std::string_view noun) {
  std::string text = std::to_string(count) + ' ';
  text += noun;
  if (count != 1) text += 's';
  return text;
}

}  // namespace kvc
