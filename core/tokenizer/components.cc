#include "core/tokenizer/components.h"

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::tokenizer {
namespace {

constexpr int kMaxDepth = 8;

using Visit = std::function<void(const Json& component, const std::string& type)>;

void VisitNested(
    const Json& json, const char* list, const std::string& origin, int depth, const Visit& visit) {
  KVC_CHECK(depth < kMaxDepth, kBadInput, "{}: expected sequences nested at most {} deep, got more",
            origin, kMaxDepth);
  const std::string type = GetString(json, "type", origin);
  if (type != "Sequence") {
    visit(json, type);
    return;
  }
  for (const Json& part : GetArray(json, list, origin)) {
    VisitNested(part, list, origin, depth + 1, visit);
  }
}

}  // namespace

void ForEachComponent(const Json& json,
                      const char* list,
                      const std::string& origin,
                      const Visit& visit) {
  if (!json.is_null()) VisitNested(json, list, origin, 0, visit);
}

Regex ParsePattern(const Json& component, const std::string& origin) {
  const Json& pattern = GetObject(component, "pattern", origin);
  if (pattern.contains("String")) {
    return Regex::Literal(GetString(pattern, "String", origin), origin);
  }
  KVC_CHECK(pattern.contains("Regex"), kUnsupported,
            "{}: pattern: expected \"String\" or \"Regex\", got another kind", origin);
  return Regex(GetString(pattern, "Regex", origin), origin);
}

}  // namespace kvc::tokenizer
