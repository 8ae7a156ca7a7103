#include "core/tokenizer/config.h"

#include <charconv>
#include <limits>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::tokenizer {
namespace {

// The token under `key`, which is a string or {"content": string, ...}; "" where absent or null.
std::string TokenText(const Json& json, const char* key, const std::string& origin) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return "";
  if (found->is_object()) return GetString(*found, "content", origin + ": " + key);
  return GetString(json, key, origin);
}

int64_t ParseId(const std::string& text, const std::string& origin) {
  int64_t id = -1;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, id);
  KVC_CHECK(error == std::errc() && stop == end, kBadInput, "{}: expected ids as keys, got \"{}\"",
            origin, text);
  return id;
}

Json ReadObject(const std::filesystem::path& path, const std::string& origin) {
  if (!std::filesystem::exists(path)) return Json::object();
  Json json = ReadJsonFile(path);
  KVC_CHECK(json.is_object(), kBadInput, "{}: expected an object, got another value", origin);
  return json;
}

}  // namespace

AddedToken ParseAddedToken(const Json& json, int64_t id, const std::string& origin) {
  AddedToken token;
  token.content = GetString(json, "content", origin);
  KVC_CHECK(id >= 0 && id < std::numeric_limits<int32_t>::max(), kBadInput,
            "{}: id of \"{}\": expected 0 or more, got {}", origin, token.content, id);
  token.id = static_cast<int32_t>(id);
  token.single_word = GetBool(json, "single_word", origin, false);
  token.lstrip = GetBool(json, "lstrip", origin, false);
  token.rstrip = GetBool(json, "rstrip", origin, false);
  token.special = GetBool(json, "special", origin, false);
  token.normalized = GetBool(json, "normalized", origin, !token.special);
  return token;
}

TokenizerConfig ReadTokenizerConfig(const std::filesystem::path& directory) {
  const std::string origin = "tokenizer_config.json";
  const std::string map_origin = "special_tokens_map.json";
  const Json json = ReadObject(directory / origin, origin);
  const Json map = ReadObject(directory / map_origin, map_origin);
  TokenizerConfig config;
  config.tokenizer_class = GetString(json, "tokenizer_class", origin, "");
  config.bos_token = TokenText(json, "bos_token", origin);
  if (config.bos_token.empty()) config.bos_token = TokenText(map, "bos_token", map_origin);
  config.eos_token = TokenText(json, "eos_token", origin);
  if (config.eos_token.empty()) config.eos_token = TokenText(map, "eos_token", map_origin);
  for (const auto& [key, flag] : {std::pair{"add_bos_token", &config.add_bos_token},
                                  std::pair{"add_eos_token", &config.add_eos_token}}) {
    if (json.contains(key)) *flag = GetBool(json, key, origin, false);
  }
  config.add_prefix_space = GetBool(json, "add_prefix_space", origin, false);
  if (json.contains("added_tokens_decoder")) {
    const std::string where = origin + ": added_tokens_decoder";
    for (const auto& [key, token] : GetObject(json, "added_tokens_decoder", origin).items()) {
      config.added_tokens.push_back(ParseAddedToken(token, ParseId(key, where), where));
    }
  }
  return config;
}

}  // namespace kvc::tokenizer
