#include "eval/tasks/json_lines.h"

#include <sstream>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/text_input.h"

namespace kvc::eval {

std::vector<std::pair<std::string, Json>> ReadJsonLines(const std::filesystem::path& file) {
  const std::string bytes = ReadFile(file);
  CheckUtf8(bytes, file.string());
  std::istringstream text(bytes);
  std::vector<std::pair<std::string, Json>> objects;
  std::string line;
  for (int64_t number = 1; std::getline(text, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string origin = file.string() + ": line " + std::to_string(number);
    Json json = ParseJson(line, origin);
    KVC_CHECK(json.is_object(), kBadInput, "{}: expected an object, got {}", origin,
              json.type_name());
    objects.emplace_back(origin, std::move(json));
  }
  KVC_CHECK(!objects.empty(), kBadInput, "{}: expected JSON lines, got none", file.string());
  return objects;
}

}  // namespace kvc::eval
