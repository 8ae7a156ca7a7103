#include "core/tokenizer/match.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/base/error.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc {

std::optional<std::string> WarnOfOtherTokenizer(const std::filesystem::path& directory,
                                                int64_t vocab_size) {
  constexpr std::array<std::string_view, 4> kFiles = {"tokenizer.json", "tokenizer.model",
                                                      "vocab.json", "encoder.json"};
  const bool is_there = std::any_of(kFiles.begin(), kFiles.end(), [&](std::string_view name) {
    return std::filesystem::exists(directory / name);
  });
  if (!is_there) return std::nullopt;
  const int64_t ids = Tokenizer::Load(directory)->vocab_size();
  if (ids <= vocab_size) return std::nullopt;
  return directory.string() + ": the tokenizer has " + std::to_string(ids) +
         " ids, the model's embedding " + std::to_string(vocab_size) +
         " rows; a text that needs one of the others will be refused";
}

}  // namespace kvc
