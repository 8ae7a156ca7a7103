#pragma once
// Does the tokenizer beside a model belong to it?

#include <cstdint>
#include <filesystem>

namespace kvc {

// Loads the tokenizer in a model's directory, if there is one, and refuses it when it has ids that
// the model's `vocab_size` rows of embeddings have not; a model may have more rows than ids.
// Throws kBadInput, and what Tokenizer::Load throws for a broken one.
void CheckTokenizerMatches(const std::filesystem::path& directory, int64_t vocab_size);

}  // namespace kvc
