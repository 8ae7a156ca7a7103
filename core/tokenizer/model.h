#pragma once
// The model of a tokenizer: what turns a word, which no rule cuts further, into tokens. Byte-pair
// encoding (bpe.h) merges neighbours; a unigram language model (unigram.h) finds the likeliest
// tokens.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/tokenizer/vocab.h"

namespace kvc::tokenizer {

// Encodes words with one model. One object serves one thread; it borrows the model.
class Encoder {
 public:
  virtual ~Encoder() = default;
  // Appends the ids of `word` (valid UTF-8). Throws kBadInput for a character that the model cannot
  // represent and must not drop.
  virtual void Append(std::string_view word, std::vector<int32_t>& ids) = 0;
};

// Does not change; several threads may use one.
class Model {
 public:
  virtual ~Model() = default;
  [[nodiscard]] virtual const Vocabulary& vocabulary() const = 0;
  [[nodiscard]] virtual std::unique_ptr<Encoder> NewEncoder() const = 0;
};

}  // namespace kvc::tokenizer
