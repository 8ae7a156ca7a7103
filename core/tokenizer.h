#pragma once
// Text <-> token ids, equal to Hugging Face `tokenizers` and to SentencePiece.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

enum class SpecialTokens {
  kNone,  // the text alone; added tokens that stand in the text are still recognised
  kAdd,   // with what the post-processor or tokenizer_config.json adds in front and behind
};

class Tokenizer {
 public:
  // Looks for tokenizer.json, then tokenizer.model (SentencePiece), then vocab.json + merges.txt or
  // encoder.json + vocab.bpe. Throws kBadInput when none is there or it is broken, kUnsupported
  // naming the component (model, normalizer, pre-tokenizer, decoder) that kvc does not have.
  static std::unique_ptr<Tokenizer> Load(const std::filesystem::path& directory);

  virtual ~Tokenizer() = default;
  [[nodiscard]] virtual std::vector<int32_t> Encode(std::string_view text,
                                                    SpecialTokens special) const = 0;
  // Decodes as Hugging Face's decode(skip_special_tokens=false) with no clean-up of spaces.
  [[nodiscard]] virtual std::string Decode(std::span<const int32_t> ids) const = 0;
  // Number of ids, added tokens included.
  [[nodiscard]] virtual int64_t vocab_size() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> TokenId(std::string_view token) const = 0;
  [[nodiscard]] virtual std::optional<int32_t> bos_id() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> eos_id() const = 0;
};

}  // namespace kvc
