#pragma once
// The token <-> id table of a model, and the reading of JSON files that hold one.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/io/json.h"

namespace kvc::tokenizer {

using TokenList = std::vector<std::pair<std::string, int64_t>>;

class Vocabulary {
 public:
  // Throws kBadInput for a token or an id that stands twice, a negative id, and one beyond int32.
  Vocabulary(TokenList tokens, const std::string& origin);

  [[nodiscard]] int32_t Id(std::string_view token) const;    // -1: no such token
  [[nodiscard]] const std::string* Token(int32_t id) const;  // nullptr: no such id
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  TokenList tokens_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into tokens_
  std::unordered_map<int32_t, size_t> positions_;      // id -> index into tokens_
};

struct VocabularyJson {
  TokenList vocabulary;  // the entries of the vocabulary object, in the file's order
  Json rest;             // everything else
};

// Parses `text`, whose object under `vocabulary_path` (empty: the whole text) maps tokens to ids.
// It does not become Json, whose objects find a key by linear search. Throws kBadInput when `text`
// is no JSON, an id no integer, or nesting or another object's size is out of all proportion.
[[nodiscard]] VocabularyJson ParseVocabularyJson(std::string_view text,
                                                 const std::string& origin,
                                                 const std::vector<std::string>& vocabulary_path);

}  // namespace kvc::tokenizer
