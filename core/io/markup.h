#pragma once
// Characters that mean something in HTML and XML.

#include <string_view>

namespace kvc {

// Returns the entity of &, <, > and ", which stand for themselves in no text and no attribute; an
// empty text for other characters.
[[nodiscard]] constexpr std::string_view MarkupEntity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    default:
      return {};
  }
}

}  // namespace kvc
