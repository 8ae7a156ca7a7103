#pragma once
// JSON of configurations, manifests and reports (core/io/json_fwd.h names the type).

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/io/json_fwd.h"

namespace kvc {

// Parses a text; `origin` names it in messages. Throws kBadInput with line and column.
[[nodiscard]] Json ParseJson(std::string_view text, const std::string& origin);
// Reads at most `max_bytes`. Throws kIo when the file cannot be read, kBadInput when it is not
// JSON.
[[nodiscard]] Json ReadJsonFile(const std::filesystem::path& path, int64_t max_bytes = 256 << 20);
// Writes JSON with two-space indentation and a final newline; the file appears by rename.
void WriteJsonFile(const std::filesystem::path& path, const Json& json);

// Typed access that names origin and key in its message: `config.json: hidden_size: expected an
// integer, got "512"`. Throws kBadInput when the key is absent (without fallback) or of another
// type.
[[nodiscard]] int64_t GetInt(const Json& object, const char* key, const std::string& origin);
[[nodiscard]] int64_t GetInt(const Json& object,
                             const char* key,
                             const std::string& origin,
                             int64_t fallback);  // absent or null gives `fallback`
[[nodiscard]] double GetDouble(const Json& object, const char* key, const std::string& origin);
[[nodiscard]] double GetDouble(const Json& object,
                               const char* key,
                               const std::string& origin,
                               double fallback);
[[nodiscard]] bool GetBool(const Json& object,
                           const char* key,
                           const std::string& origin,
                           bool fallback);
[[nodiscard]] std::string GetString(const Json& object, const char* key, const std::string& origin);
[[nodiscard]] std::string GetString(const Json& object,
                                    const char* key,
                                    const std::string& origin,
                                    const std::string& fallback);
// Returns the array or object under `key`. Throws kBadInput when it is absent or of another type.
[[nodiscard]] const Json& GetArray(const Json& object, const char* key, const std::string& origin);
[[nodiscard]] const Json& GetObject(const Json& object, const char* key, const std::string& origin);
// Throws kBadInput for keys of `object` that are not listed.
void CheckKeys(const Json& object,
               std::initializer_list<std::string_view> known,
               const std::string& origin);

}  // namespace kvc
