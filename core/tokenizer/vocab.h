#pragma once
// The table of tokens and ids of a model, and the reader of JSON files that hold one.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/io/json.h"

namespace kvc::tokenizer {

using TokenList = std::vector<std::pair<std::string, int64_t>>;

// A table of tokens and ids.
class Vocabulary {
 public:
  // Throws kBadInput for a token or an id that stands there twice, and for an id that is negative
  // or beyond int32.
  Vocabulary(TokenList tokens, const std::string& origin);

  [[nodiscard]] int32_t Id(std::string_view token) const;    // -1: no such token
  [[nodiscard]] const std::string* Token(int32_t id) const;  // nullptr: no such id
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  [[nodiscard]] int64_t max_id() const { return max_id_; }  // -1: no token

 private:
  TokenList tokens_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into tokens_
  std::unordered_map<int32_t, size_t> positions_;      // id -> index into tokens_
  int64_t max_id_ = -1;
};

struct VocabularyJson {
  TokenList vocabulary;  // the entries of the vocabulary object, in the file's order
  Json rest;             // everything else
};

// Parses `text`, whose object under `vocabulary_path` (empty: the whole text) maps tokens to ids.
// That object does not become Json, whose objects find a key by linear search. Throws kBadInput
// when `text` is not JSON, when an id is not an integer, and beyond 32 levels of nesting or 10000
// keys in another object.
[[nodiscard]] VocabularyJson ParseVocabularyJson(std::string_view text,
                                                 const std::string& origin,
                                                 const std::vector<std::string>& vocabulary_path);

}  // namespace kvc::tokenizer
