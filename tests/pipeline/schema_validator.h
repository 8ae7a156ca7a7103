#pragma once
// A JSON Schema validator for what docs/formats/recipe.schema.json uses of draft 7. A keyword that
// it does not know fails the test, so that a schema says nothing that is not tried.

#include <regex>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "core/io/json.h"

namespace kvc::testing {

class SchemaValidator {
 public:
  explicit SchemaValidator(Json schema) : root_(std::move(schema)) {}

  [[nodiscard]] bool Accepts(const Json& value) const { return Fits(value, root_); }

 private:
  [[nodiscard]] static bool IsType(const Json& value, const std::string& type) {
    return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
           (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
           (type == "boolean" && value.is_boolean());
  }

  [[nodiscard]] bool Fits(const Json& value, const Json& schema) const {
    for (const auto& [keyword, rule] : schema.items()) {
      if (!FitsRule(value, schema, keyword, rule)) return false;
    }
    return true;
  }

  [[nodiscard]] bool FitsRule(const Json& value,
                              const Json& schema,
                              const std::string& keyword,
                              const Json& rule) const {
    if (keyword == "type") return FitsType(value, rule);
    if (keyword == "const") return value == rule;
    if (keyword == "enum") return std::ranges::find(rule, value) != rule.end();
    if (keyword == "not") return !Fits(value, rule);
    if (keyword == "$ref") {
      return Fits(value, root_.at(Json::json_pointer(rule.get<std::string>().substr(1))));
    }
    if (keyword == "anyOf") {
      return std::ranges::any_of(rule, [&](const Json& one) { return Fits(value, one); });
    }
    if (keyword == "pattern") {
      return !value.is_string() ||
             std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>()));
    }
    if (keyword == "minItems") return !value.is_array() || value.size() >= rule.get<size_t>();
    if (keyword == "minLength") {
      return !value.is_string() || value.get<std::string>().size() >= rule.get<size_t>();
    }
    if (keyword == "items") return !value.is_array() || FitsAll(value, rule);
    if (value.is_object() && !FitsObject(value, schema, keyword, rule)) return false;
    static const std::set<std::string> known = {
        "$schema",  "title",      "description",          "definitions",
        "required", "properties", "additionalProperties", "propertyNames"};
    EXPECT_TRUE(known.contains(keyword)) << keyword;
    return true;
  }

  [[nodiscard]] static bool FitsType(const Json& value, const Json& rule) {
    if (rule.is_string()) return IsType(value, rule);
    return std::ranges::any_of(rule, [&](const Json& one) { return IsType(value, one); });
  }

  [[nodiscard]] bool FitsAll(const Json& value, const Json& rule) const {
    return std::ranges::all_of(value, [&](const Json& one) { return Fits(one, rule); });
  }

  [[nodiscard]] bool FitsObject(const Json& value,
                                const Json& schema,
                                const std::string& keyword,
                                const Json& rule) const {
    if (keyword == "required") {
      return std::ranges::all_of(rule, [&](const Json& key) { return value.contains(key); });
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [key, one] : value.items()) {
      if (keyword == "propertyNames" && !Fits(Json(key), rule)) return false;
      if (keyword == "properties" && rule.contains(key) && !Fits(one, rule[key])) return false;
      if (keyword != "additionalProperties" || properties.contains(key)) continue;
      if (rule.is_boolean() ? !rule.get<bool>() : !Fits(one, rule)) return false;
    }
    return true;
  }

  Json root_;
};

}  // namespace kvc::testing
