#pragma once
// The settings of the files that stand beside the tokenizer itself: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, and config.json for the model's type.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/added.h"

namespace kvc::tokenizer {

// A special token under its key ("bos_token", "pad_token", "image_token").
struct NamedToken {
  std::string key;
  std::optional<AddedToken> token;  // without id; none: null in the file, hence no default either
};

struct TokenizerConfig {
  std::string tokenizer_class;  // "" where not given, and without "Fast" at its end
  std::string model_type;  // of config.json, or of the configuration in a bundle's manifest.json
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<bool> add_prefix_space;
  std::optional<bool> legacy;
  // The tokens of "added_tokens_decoder", else of added_tokens.json, in the order of the ids that
  // they claim.
  std::vector<AddedToken> added_tokens;
  // Special tokens by key, from tokenizer_config.json, else from special_tokens_map.json.
  std::vector<NamedToken> named_tokens;
  std::vector<AddedToken> extra_tokens;  // of "extra_special_tokens", "additional_special_tokens"

  // Gives `key` a token where the files have nothing under it.
  void SetDefault(const std::string& key, const std::string& token);
  // The text of the token under `key`; "": none.
  [[nodiscard]] std::string Text(const std::string& key) const;
};

// The classes of transformers that have special tokens of their own.
enum class TokenizerClass { kOther, kGpt2, kQwen2 };

// Returns the class that transformers takes: Qwen2's for models of that type, else the one that
// tokenizer_config.json names, else that of the model's type.
[[nodiscard]] TokenizerClass ClassOf(const TokenizerConfig& config);

// Gives the keys for which a class has a default, <|endoftext|>, that token where the files have
// nothing under them.
void SetClassDefaults(TokenizerClass tokenizer_class, TokenizerConfig& config);

// Reads the files of a directory; a file that is missing sets nothing. Throws kBadInput.
[[nodiscard]] TokenizerConfig ReadTokenizerConfig(const std::filesystem::path& directory);

// Parses an entry of tokenizer.json's "added_tokens" or of tokenizer_config.json's
// "added_tokens_decoder", whose keys are the ids. Throws kBadInput.
[[nodiscard]] AddedToken ParseAddedToken(const Json& json, int64_t id, const std::string& origin);

}  // namespace kvc::tokenizer
