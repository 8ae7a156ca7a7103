#include "core/tokenizer/match.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc {

void CheckTokenizerMatches(const std::filesystem::path& directory, int64_t vocab_size) {
  constexpr std::array<std::string_view, 4> kFiles = {"tokenizer.json", "tokenizer.model",
                                                      "vocab.json", "encoder.json"};
  const bool is_there = std::any_of(kFiles.begin(), kFiles.end(), [&](std::string_view name) {
    return std::filesystem::exists(directory / name);
  });
  if (!is_there) return;
  const int64_t ids = Tokenizer::Load(directory)->vocab_size();
  KVC_CHECK(ids <= vocab_size, kBadInput,
            "{}: tokenizer: expected at most the {} ids of the model, got {}; put the model's own "
            "tokenizer there",
            directory.string(), vocab_size, ids);
}

}  // namespace kvc
