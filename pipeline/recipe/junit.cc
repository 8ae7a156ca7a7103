#include "pipeline/recipe/junit.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "core/io/json.h"
#include "core/io/markup.h"

namespace kvc::recipe {
namespace {

// Escapes a text for XML 1.0, which has no control characters but tab and ends of lines.
std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const std::string_view entity = MarkupEntity(c);
    if (!entity.empty()) {
      escaped += entity;
    } else if (c == '\t' || c == '\n' || c == '\r') {
      escaped += fmt::format("&#{};", int{c});
    } else {
      escaped += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return escaped;
}

std::string Suite(const std::string& name,
                  size_t tests,
                  size_t failures,
                  size_t errors,
                  double seconds,
                  const std::string& cases) {
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuites>\n"
      "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3f}\">\n"
      "{}</testsuite>\n"
      "</testsuites>\n",
      Escaped(name), tests, failures, errors, seconds, cases);
}

std::string GateCase(const StageGate& gate) {
  const std::string begin = fmt::format("<testcase classname=\"{}\" name=\"{}\" time=\"0\"",
                                        Escaped(gate.stage), Escaped(gate.name));
  if (gate.passed) return begin + "/>\n";
  const std::string reason = gate.record.value("reason", "");
  const std::string text = fmt::format("{}: {}, limit {}{}", gate.name, gate.value.dump(),
                                       gate.limit.dump(), reason.empty() ? "" : "; " + reason);
  return fmt::format("{}>\n<failure message=\"{}\" type=\"gate\">{}</failure>\n</testcase>\n",
                     begin, Escaped(text), Escaped(gate.record.dump(2)));
}

}  // namespace

std::string JUnitXml(const std::string& name, const RecipeResult& result) {
  std::string cases;
  double seconds = 0.0;
  for (const StageOutcome& stage : result.stages) {
    cases += fmt::format(
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\">\n<system-out>{}: {}</system-out>\n"
        "</testcase>\n",
        Escaped(stage.name), Escaped(stage.command), stage.seconds, stage.state,
        Escaped(stage.line));
    seconds += stage.seconds;
  }
  for (const StageGate& gate : result.gates) cases += GateCase(gate);
  const auto failures = static_cast<size_t>(
      std::ranges::count_if(result.gates, [](const StageGate& gate) { return !gate.passed; }));
  return Suite(name, result.stages.size() + result.gates.size(), failures, 0, seconds, cases);
}

std::string JUnitXml(const std::string& name, const std::string& error) {
  const std::string text = fmt::format(
      "<testcase classname=\"{}\" name=\"run\" time=\"0\">\n<error message=\"{}\" "
      "type=\"error\"/>\n"
      "</testcase>\n",
      Escaped(name), Escaped(error));
  return Suite(name, 1, 0, 1, 0.0, text);
}

}  // namespace kvc::recipe
