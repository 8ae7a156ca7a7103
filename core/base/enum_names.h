#pragma once
// Look-up of enumerators by name and of names by enumerator, for command lines and files. A table
// is an array of pairs {enumerator, name}.

#include <string>
#include <string_view>

#include "core/base/error.h"

namespace kvc {

// The name of `value`. Throws kInternal when the table lacks it.
template <class Table, class Enum>
[[nodiscard]] std::string_view EnumName(const Table& table, Enum value) {
  for (const auto& [kind, name] : table) {
    if (kind == value) return name;
  }
  KVC_THROW(kInternal, "enumerator without a name");
}

// The enumerator called `name`. Throws kUsage naming `option` and listing the names.
template <class Table>
[[nodiscard]] auto EnumValue(const Table& table, std::string_view name, const char* option) {
  std::string known;
  for (const auto& [kind, text] : table) {
    if (text == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  KVC_THROW(kUsage, "{}: expected one of {}, got \"{}\"", option, known, name);
}

}  // namespace kvc
