#pragma once
// Enumerators and their names on command lines and in files. A table is an array of pairs
// {enumerator, name}.

#include <string>
#include <string_view>

#include "core/base/error.h"

namespace kvc {

template <class Table, class Enum>
[[nodiscard]] std::string_view EnumName(const Table& table, Enum value) {
  for (const auto& [kind, name] : table) {
    if (kind == value) return name;
  }
  KVC_THROW(kInternal, "enumerator without a name");
}

// Throws kUsage naming `option` and listing the names.
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
