#pragma once
// The check that the tokenizer beside a model belongs to it.

#include <cstdint>
#include <filesystem>

namespace kvc {

// Loads the tokenizer in a model's directory, if there is one, and refuses it when it has more ids
// than the model's embedding has rows (`vocab_size`); a model may have more rows than ids. Throws
// kBadInput, and what Tokenizer::Load throws for a broken tokenizer.
void CheckTokenizerMatches(const std::filesystem::path& directory, int64_t vocab_size);

}  // namespace kvc
