#include "core/io/json.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/files.h"
#include "core/io/text_input.h"

namespace kvc {
namespace {

// At most this much of an offending value is shown in a message.
constexpr size_t kShownCharacters = 60;

std::string Shown(const Json& value) {
  // Arrays and objects are named only: dumping one recurses as deep as the file nests.
  if (value.is_structured()) {
    return value.is_array() ? "an array" : "an object";
  }
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kShownCharacters) {
    text = text.substr(0, kShownCharacters) + "...";
  }
  return text;
}

const Json* Find(const Json& object, const char* key, const std::string& origin) {
  KVC_CHECK(object.is_object(), kBadInput, "{}: expected an object, got {}", origin, Shown(object));
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

const Json& Require(const Json& object, const char* key, const std::string& origin) {
  const Json* value = Find(object, key, origin);
  KVC_CHECK(value != nullptr, kBadInput, "{}: expected the key \"{}\", got none", origin, key);
  return *value;
}

// Returns the value when it exists and is not null.
const Json* FindSet(const Json& object, const char* key, const std::string& origin) {
  const Json* value = Find(object, key, origin);
  return value == nullptr || value->is_null() ? nullptr : value;
}

int64_t ToInt(const Json& value, const char* key, const std::string& origin) {
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() ||
       value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  KVC_CHECK(fits, kBadInput, "{}: {}: expected an integer, got {}", origin, key, Shown(value));
  return value.get<int64_t>();
}

double ToDouble(const Json& value, const char* key, const std::string& origin) {
  KVC_CHECK(value.is_number(), kBadInput, "{}: {}: expected a number, got {}", origin, key,
            Shown(value));
  return value.get<double>();
}

std::string ToText(const Json& value, const char* key, const std::string& origin) {
  KVC_CHECK(value.is_string(), kBadInput, "{}: {}: expected a string, got {}", origin, key,
            Shown(value));
  return value.get<std::string>();
}

}  // namespace

Json ParseJson(std::string_view text, const std::string& origin) {
  CheckUtf8(text, origin);
  // nlohmann takes a null byte for the end of the text, whatever follows.
  KVC_CHECK(text.find('\0') == std::string_view::npos, kBadInput,
            "{}: expected JSON, got a null byte at offset {}", origin, text.find('\0'));
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    const std::string_view before = text.substr(0, error.byte > 0 ? error.byte - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0
    KVC_THROW(kBadInput, "{}: expected JSON, got a syntax error at line {}, column {}", origin,
              line, before.size() - line_start + 1);
  } catch (const Json::exception& error) {
    KVC_THROW(kBadInput, "{}: expected JSON, got {}", origin, error.what());
  }
}

Json ReadJsonFile(const std::filesystem::path& path, int64_t max_bytes) {
  const std::string text = ReadFile(path, max_bytes);
  RefuseKnownKind(text, path.string(), "JSON");
  return ParseJson(text, path.string());
}

void WriteJsonFile(const std::filesystem::path& path, const Json& json) {
  WriteFile(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

int64_t GetInt(const Json& object, const char* key, const std::string& origin) {
  return ToInt(Require(object, key, origin), key, origin);
}

int64_t GetInt(const Json& object, const char* key, const std::string& origin, int64_t fallback) {
  const Json* value = FindSet(object, key, origin);
  return value == nullptr ? fallback : ToInt(*value, key, origin);
}

double GetDouble(const Json& object, const char* key, const std::string& origin) {
  return ToDouble(Require(object, key, origin), key, origin);
}

double GetDouble(const Json& object, const char* key, const std::string& origin, double fallback) {
  const Json* value = FindSet(object, key, origin);
  return value == nullptr ? fallback : ToDouble(*value, key, origin);
}

bool GetBool(const Json& object, const char* key, const std::string& origin, bool fallback) {
  const Json* value = FindSet(object, key, origin);
  if (value == nullptr) {
    return fallback;
  }
  KVC_CHECK(value->is_boolean(), kBadInput, "{}: {}: expected true or false, got {}", origin, key,
            Shown(*value));
  return value->get<bool>();
}

std::string GetString(const Json& object, const char* key, const std::string& origin) {
  return ToText(Require(object, key, origin), key, origin);
}

std::string GetString(const Json& object,
                      const char* key,
                      const std::string& origin,
                      const std::string& fallback) {
  const Json* value = FindSet(object, key, origin);
  return value == nullptr ? fallback : ToText(*value, key, origin);
}

const Json& GetArray(const Json& object, const char* key, const std::string& origin) {
  const Json& value = Require(object, key, origin);
  KVC_CHECK(value.is_array(), kBadInput, "{}: {}: expected an array, got {}", origin, key,
            Shown(value));
  return value;
}

const Json& GetObject(const Json& object, const char* key, const std::string& origin) {
  const Json& value = Require(object, key, origin);
  KVC_CHECK(value.is_object(), kBadInput, "{}: {}: expected an object, got {}", origin, key,
            Shown(value));
  return value;
}

void CheckKeys(const Json& object,
               std::initializer_list<std::string_view> known,
               const std::string& origin) {
  KVC_CHECK(object.is_object(), kBadInput, "{}: expected an object, got {}", origin, Shown(object));
  for (const auto& item : object.items()) {
    const bool is_known = std::find(known.begin(), known.end(), item.key()) != known.end();
    KVC_CHECK(
        is_known, kBadInput,
        "{}: expected only known keys, got \"{}\"; a newer version of kvc may have written it",
        origin, item.key());
  }
}

}  // namespace kvc
