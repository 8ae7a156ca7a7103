#pragma once
// The unigram language model, "Unigram" of tokenizer.json (Kudo 2018, arXiv:1804.10959).
//
// A word becomes the tokens t_1 .. t_n that spell it and have the largest sum of scores, found by
// Viterbi's algorithm from the left; of equal sums the first found counts. A character that is no
// token by itself may also be unknown, at the lowest score of the vocabulary less 10. A run of
// unknown characters becomes its bytes <0xHH> (with byte_fallback, where all of them are tokens),
// else one unknown token, as in Hugging Face's tokenizers.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/tokenizer/model.h"
#include "core/tokenizer/trie.h"

namespace kvc::tokenizer {

struct UnigramOptions {
  std::optional<int64_t> unk_id;  // none: a text with unknown characters is an error
  bool byte_fallback = false;
};

using ScoredTokens = std::vector<std::pair<std::string, double>>;

class UnigramModel final : public Model {
 public:
  // The id of a token is its place in `tokens`. Throws kBadInput, naming `origin`, for a token that
  // stands there twice, a score that is no finite number, and an unk_id that names no token.
  UnigramModel(ScoredTokens tokens, const UnigramOptions& options, const std::string& origin);

  [[nodiscard]] const Vocabulary& vocabulary() const override { return vocabulary_; }
  [[nodiscard]] std::unique_ptr<Encoder> NewEncoder() const override;

 private:
  friend class UnigramEncoder;
  Vocabulary vocabulary_;
  std::string origin_;
  Trie trie_;
  std::vector<double> scores_;           // [id]
  std::array<int32_t, 256> byte_ids_{};  // of <0xHH>; -1: no token or no byte_fallback
  double unk_score_ = 0.0;
  int32_t unk_id_ = -1;
};

}  // namespace kvc::tokenizer
