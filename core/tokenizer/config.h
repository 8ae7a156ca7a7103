#pragma once
// The settings of tokenizer_config.json and special_tokens_map.json, which stand beside the
// tokenizer itself.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "core/tokenizer/added.h"

namespace kvc::tokenizer {

struct TokenizerConfig {
  std::string tokenizer_class;  // strings are "" where not given
  std::string bos_token;        // tokenizer_config.json, else special_tokens_map.json
  std::string eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  bool add_prefix_space = false;
  std::vector<AddedToken> added_tokens;  // of "added_tokens_decoder"
};

// Reads both files of a directory; a file that is missing sets nothing. Throws kBadInput.
[[nodiscard]] TokenizerConfig ReadTokenizerConfig(const std::filesystem::path& directory);

// Parses an entry of tokenizer.json's "added_tokens" or of tokenizer_config.json's
// "added_tokens_decoder", whose keys are the ids. Throws kBadInput.
[[nodiscard]] AddedToken ParseAddedToken(const Json& json, int64_t id, const std::string& origin);

}  // namespace kvc::tokenizer
