#include "pipeline/report/format_text.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace kvc::report {

std::string FormatText(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

std::string Number(double value, int digits) {
  return std::isfinite(value) ? FormatText("%.*f", digits, value) : "-";
}

std::string Percent(double share) {
  return std::isfinite(share) ? Number(100.0 * share, 1) + " %" : "-";
}

std::string Tokens(double count) {
  return count < 1024.0 ? FormatText("%.4g", count) : FormatText("%.4gK", count / 1024.0);
}

}  // namespace kvc::report
