#pragma once
// The components that tokenizer.json names: its normalizer, pre-tokenizer, decoder and
// post-processor. Each is one object with a "type", or a "Sequence" of them, or null.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/regex.h"

namespace kvc::tokenizer {

// Calls `visit` with every component of `json` that is no Sequence, and with its type, in the order
// in which they apply. null has none. `list` is the key under which a Sequence has its parts.
// Throws kBadInput when a type is missing or Sequences are nested more than 8 deep.
void ForEachComponent(
    const Json& json,
    const char* list,
    const std::string& origin,
    const std::function<void(const Json& component, const std::string& type)>& visit);

// The parts that `parse(component, type)` makes of the components. Throws what ForEachComponent
// throws.
template <class Part, class Parse>
[[nodiscard]] std::vector<std::unique_ptr<Part>> ParseComponents(const Json& json,
                                                                 const char* list,
                                                                 const std::string& origin,
                                                                 const Parse& parse) {
  std::vector<std::unique_ptr<Part>> parts;
  ForEachComponent(json, list, origin, [&](const Json& component, const std::string& type) {
    parts.push_back(parse(component, type));
  });
  return parts;
}

// The expression under "pattern" of a component: {"String": text} or {"Regex": expression}. Throws
// kUnsupported for another kind, and what Regex throws.
[[nodiscard]] Regex ParsePattern(const Json& component, const std::string& origin);

}  // namespace kvc::tokenizer
