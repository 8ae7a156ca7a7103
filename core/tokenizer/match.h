#pragma once
// Compares the tokenizer beside a model with the model.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace kvc {

// Loads the tokenizer in a model's directory, if there is one, and returns a warning when it has
// more ids than the model's embedding has rows (`vocab_size`): such ids are refused when they are
// used. A model may have more rows than ids. Throws what Tokenizer::Load throws for a broken
// tokenizer.
[[nodiscard]] std::optional<std::string> WarnOfOtherTokenizer(
    const std::filesystem::path& directory, int64_t vocab_size);

}  // namespace kvc
