#pragma once
// Text of numbers as reports show them.

#include <string>

namespace kvc::report {

// Returns the formatted text, like printf, cut at 511 bytes: meant for numbers and short names.
[[nodiscard]] std::string FormatText(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Returns the value with so many decimals; "-" for NaN and infinity.
[[nodiscard]] std::string Number(double value, int digits);
// Returns the share in percent with one decimal: "24.4 %"; "-" for NaN and infinity.
[[nodiscard]] std::string Percent(double share);
// Returns "512" below 1,024, else thousands of 1,024: "1K", "1.5K".
[[nodiscard]] std::string Tokens(double count);

}  // namespace kvc::report
