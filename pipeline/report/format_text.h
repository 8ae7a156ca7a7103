#pragma once
// printf into a string.

#include <string>

namespace kvc::report {

// Cut at 511 bytes: for numbers and short names.
[[nodiscard]] std::string FormatText(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace kvc::report
