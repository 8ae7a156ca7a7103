#include "tools/number_checks.h"

#include <cmath>
#include <cstdlib>
#include <string>

#include <CLI/CLI.hpp>

#include "core/base/error.h"

namespace kvc::tools {
namespace {

// Returns true for text that is a number as a whole; "nan" and "inf" are.
bool ReadNumber(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

// A check that says what was expected. `fits` is false for a NaN.
template <class Fits>
CLI::Validator NumberCheck(const char* expected, const char* name, Fits fits) {
  return {[expected, fits](std::string& text) {
            double value = 0.0;
            if (ReadNumber(text, value) && fits(value)) return std::string();
            return "expected " + std::string(expected) + ", got " + text;
          },
          name};
}

}  // namespace

CLI::Validator AboveZero() {
  return NumberCheck("a number above 0", "ABOVE 0", [](double value) { return value > 0.0; });
}

CLI::Validator ZeroOrMore() {
  return NumberCheck("a number of 0 or more", "0 OR MORE",
                     [](double value) { return value >= 0.0; });
}

void CheckFiniteOptions(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0 || option->get_type_name().starts_with("TEXT")) continue;
    for (const std::string& text : option->results()) {
      double value = 0.0;
      KVC_CHECK(!ReadNumber(text, value) || std::isfinite(value), kUsage,
                "{}: expected a finite number, got {}", option->get_name(), text);
    }
  }
  for (const CLI::App* command : app.get_subcommands()) CheckFiniteOptions(*command);
}

}  // namespace kvc::tools
