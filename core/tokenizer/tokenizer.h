#pragma once
// Tokenizers between text and token ids, equal to those of Hugging Face transformers (5.24, with
// tokenizers 0.23).
//
// tokenizer.json may hold BPE or a unigram model with the components that
// core/tokenizer/{normalize,pretok,decode}.h list; its truncation and padding are ignored, as
// transformers does. A Tokenizer does not change: several threads may use one.

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
  kAdd,   // with the tokens that the post-processor or tokenizer_config.json puts around the text
};

// A part of a text that is put together from what is trusted, as a chat template, and what is not.
struct TextPart {
  std::string text;
  bool control = false;  // special tokens that stand in it are meant as such
};

class Tokenizer {
 public:
  // Looks for tokenizer.json, then tokenizer.model (SentencePiece), then vocab.json + merges.txt or
  // encoder.json + vocab.bpe; tokenizer_config.json, special_tokens_map.json and added_tokens.json
  // beside it add tokens (core/tokenizer/special_tokens.h). Throws kBadInput when none is there or
  // it is broken, kUnsupported naming the component (model, normalizer, pre-tokenizer, decoder)
  // that kvc does not have.
  static std::unique_ptr<Tokenizer> Load(const std::filesystem::path& directory);

  virtual ~Tokenizer() = default;
  // The ids of a text. Throws kBadInput for text that is not UTF-8 (whatever the model could do
  // with its bytes) or has 2^31 bytes or more. A normalizer or the model may drop or replace what
  // it does not know.
  [[nodiscard]] virtual std::vector<int32_t> Encode(std::string_view text,
                                                    SpecialTokens special) const = 0;
  // The ids of the parts put together as one text, without tokens around it. A special token is one
  // only where all of it stands in one control part; elsewhere its text is encoded like any other.
  // Where no other part holds the text of a special token, the ids are Encode's. The default is for
  // tokenizers without special tokens. Throws like Encode.
  [[nodiscard]] virtual std::vector<int32_t> EncodeParts(std::span<const TextPart> parts) const;
  // The text of ids, as Hugging Face's decode(skip_special_tokens=false) without a clean-up of
  // spaces gives it. Ids that name no token are left out. The result is UTF-8: bytes of an
  // incomplete character become U+FFFD.
  [[nodiscard]] virtual std::string Decode(std::span<const int32_t> ids) const = 0;
  // One more than the largest id, added tokens included: the rows that an embedding must have.
  [[nodiscard]] virtual int64_t vocab_size() const = 0;
  // The id of a token by its text, if there is one.
  [[nodiscard]] virtual std::optional<int32_t> TokenId(std::string_view token) const = 0;
  // The ids that begin and end a sequence, from tokenizer_config.json, else
  // special_tokens_map.json; a tokenizer.model knows its own, and with GPT-2's files <|endoftext|>
  // is both, with Qwen2's the end.
  [[nodiscard]] virtual std::optional<int32_t> bos_id() const = 0;
  [[nodiscard]] virtual std::optional<int32_t> eos_id() const = 0;
};

}  // namespace kvc
