#pragma once
// Formats into a string like printf.

#include <string>

namespace kvc::report {

// Returns the formatted text, cut at 511 bytes: meant for numbers and short names.
[[nodiscard]] std::string FormatText(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace kvc::report
