#pragma once
// The place of an error: one of several prompts or lines, whose number its message must name.

#include <string>

#include "core/base/error.h"

namespace kvc {

// Calls `body` and returns what it returns. An Error that leaves it says `place` first:
// "prompt: expected 1 to 512 tokens" becomes "prompt 2: expected 1 to 512 tokens" at "prompt 2".
template <class Body>
decltype(auto) AtPlace(const std::string& place, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    const std::string text = error.what();
    const std::string kind = place.substr(0, place.find_last_of(' ')) + ": ";
    const bool repeats = text.starts_with(kind);
    throw Error(error.kind(), place + ": " + (repeats ? text.substr(kind.size()) : text));
  }
}

}  // namespace kvc
