#include "core/tokenizer/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::tokenizer {
namespace {

constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kMapFile = "special_tokens_map.json";
constexpr const char* kAddedFile = "added_tokens.json";
constexpr const char* kDecoderKey = "added_tokens_decoder";

// The keys of special tokens, in the order in which transformers adds them.
constexpr std::array<const char*, 7> kSpecialKeys = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

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

AddedToken SpecialToken(std::string content) {
  AddedToken token;
  token.content = std::move(content);
  token.special = true;
  return token;
}

// The token that a value stands for: its text, or an object with its content and flags. none: null
// or no token.
std::optional<AddedToken> ParseSpecialToken(const Json& value, const std::string& origin) {
  if (value.is_string()) return SpecialToken(value.get<std::string>());
  if (!value.is_object()) return std::nullopt;
  AddedToken token = ParseAddedToken(value, 0, origin);
  token.id = -1;
  token.special = true;
  return token;
}

// Puts tokens in the order of kSpecialKeys, others behind them.
void SortByKey(std::vector<NamedToken>& tokens) {
  std::ranges::stable_sort(tokens, {}, [](const NamedToken& named) {
    return std::ranges::find(kSpecialKeys, named.key) - kSpecialKeys.begin();
  });
}

// Takes the special tokens of a file's object: the seven keys, other keys that end in "_token" and
// have a token, and the lists of further ones. What is there already stays.
void TakeSpecialTokens(const Json& json, const std::string& origin, TokenizerConfig& config) {
  const auto take = [&](const std::string& key, const Json& value) {
    const bool known = std::ranges::any_of(
        config.named_tokens, [&](const NamedToken& named) { return named.key == key; });
    if (!known) config.named_tokens.push_back({key, ParseSpecialToken(value, origin + ": " + key)});
  };
  for (const char* key : kSpecialKeys) {
    if (json.contains(key)) take(key, json.at(key));
  }
  for (const auto& [key, value] : json.items()) {
    if (std::string_view(key).ends_with("_token") && (value.is_string() || value.is_object())) {
      take(key, value);
    }
  }
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    if (!json.contains(key)) continue;
    for (const auto& item : json.at(key).items()) {  // an array's elements or an object's values
      auto token = ParseSpecialToken(item.value(), origin + ": " + key);
      if (token) config.extra_tokens.push_back(*std::move(token));
    }
  }
}

void TakeDecoder(const Json& json, TokenizerConfig& config) {
  const std::string where = std::string(kConfigFile) + ": " + kDecoderKey;
  for (const auto& [key, token] : GetObject(json, kDecoderKey, kConfigFile).items()) {
    config.added_tokens.push_back(ParseAddedToken(token, ParseId(key, where), where));
  }
}

// added_tokens.json maps texts to ids; those that are special tokens elsewhere are so here.
void TakeAddedFile(const std::filesystem::path& directory, TokenizerConfig& config) {
  const Json json = ReadObject(directory / kAddedFile, kAddedFile);
  const auto is_special = [&](const std::string& content) {
    return std::ranges::any_of(config.named_tokens,
                               [&](const NamedToken& named) {
                                 return named.token && named.token->content == content;
                               }) ||
           std::ranges::any_of(config.extra_tokens,
                               [&](const AddedToken& token) { return token.content == content; });
  };
  for (const auto& item : json.items()) {
    const std::string& content = item.key();
    const int64_t id = GetInt(json, content.c_str(), kAddedFile);
    const bool special = is_special(content);
    config.added_tokens.push_back(
        ParseAddedToken({{"content", content}, {"special", special}}, id, kAddedFile));
  }
}

// The type of the model, that of its source for a thin one (core/checkpoint/thin_names.h).
std::string ReadModelType(const std::filesystem::path& directory) {
  const auto type_of = [](const Json& json, const std::string& origin) -> std::string {
    if (!json.is_object()) return "";
    std::string type = GetString(json, "model_type", origin, "");
    if (type != "kvc" || !json.contains("kvc")) return type;
    return GetString(json.at("kvc"), "family", origin + ": kvc", "");
  };
  if (std::filesystem::exists(directory / "config.json")) {
    return type_of(ReadObject(directory / "config.json", "config.json"), "config.json");
  }
  const Json manifest = ReadObject(directory / "manifest.json", "manifest.json");
  return manifest.contains("model") ? type_of(manifest.at("model"), "manifest.json: model") : "";
}

}  // namespace

void TokenizerConfig::SetDefault(const std::string& key, const std::string& token) {
  for (const NamedToken& named : named_tokens) {
    if (named.key == key) return;
  }
  named_tokens.push_back({key, SpecialToken(token)});
  SortByKey(named_tokens);
}

std::string TokenizerConfig::Text(const std::string& key) const {
  for (const NamedToken& named : named_tokens) {
    if (named.key == key && named.token) return named.token->content;
  }
  return "";
}

TokenizerClass ClassOf(const TokenizerConfig& config) {
  const std::string& name = config.tokenizer_class;
  const bool none = name.empty();
  if (name == "Qwen2Tokenizer" || config.model_type == "qwen2") return TokenizerClass::kQwen2;
  if (none && config.model_type.starts_with("qwen3")) return TokenizerClass::kQwen2;
  if (name == "GPT2Tokenizer" || (none && config.model_type == "gpt2")) {
    return TokenizerClass::kGpt2;
  }
  return TokenizerClass::kOther;
}

void SetClassDefaults(TokenizerClass tokenizer_class, TokenizerConfig& config) {
  if (tokenizer_class == TokenizerClass::kOther) return;
  const bool gpt2 = tokenizer_class == TokenizerClass::kGpt2;
  for (const char* key : {"eos_token", "unk_token", gpt2 ? "bos_token" : "pad_token"}) {
    config.SetDefault(key, "<|endoftext|>");
  }
}

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
  const Json json = ReadObject(directory / kConfigFile, kConfigFile);
  TokenizerConfig config;
  config.tokenizer_class = GetString(json, "tokenizer_class", kConfigFile, "");
  constexpr std::string_view kFast = "Fast";
  if (config.tokenizer_class.ends_with(kFast)) {
    config.tokenizer_class.resize(config.tokenizer_class.size() - kFast.size());
  }
  config.model_type = ReadModelType(directory);
  for (const auto& [key, flag] : {std::pair{"add_bos_token", &config.add_bos_token},
                                  std::pair{"add_eos_token", &config.add_eos_token},
                                  std::pair{"add_prefix_space", &config.add_prefix_space},
                                  std::pair{"legacy", &config.legacy}}) {
    if (json.contains(key) && !json.at(key).is_null()) {
      *flag = GetBool(json, key, kConfigFile, false);
    }
  }
  TakeSpecialTokens(json, kConfigFile, config);
  TakeSpecialTokens(ReadObject(directory / kMapFile, kMapFile), kMapFile, config);
  SortByKey(config.named_tokens);
  if (json.contains(kDecoderKey)) {
    TakeDecoder(json, config);
  } else {
    TakeAddedFile(directory, config);
  }
  std::ranges::stable_sort(config.added_tokens, {}, &AddedToken::id);
  return config;
}

}  // namespace kvc::tokenizer
