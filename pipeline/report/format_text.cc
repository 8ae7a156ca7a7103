#include "pipeline/report/format_text.h"

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

}  // namespace kvc::report
