#pragma once
// Added tokens (<s>, <|im_end|>, ...), which are cut out of a text before the model sees it.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/trie.h"

namespace kvc::tokenizer {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool single_word = false;  // no match where a word character stands on either side
  bool lstrip = false;       // the match includes the white space before it
  bool rstrip = false;       // ... and after it
  bool normalized = false;   // searched in the normalized text, by its normalized content
  bool special = false;
};

// A part of a text: an added token, or (id -1) the text between two of them.
struct Section {
  int32_t id = -1;
  size_t begin = 0;  // byte offset in the text
  std::string_view text;
};

// Finds the tokens of a list in a text: from the left, at each place the longest (like Hugging
// Face's Aho-Corasick automaton, leftmost-longest).
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // Ignores tokens with empty content.
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);

  // Says whether a token may stand at text[begin, end).
  using Allowed = std::function<bool(const AddedToken& token, size_t begin, size_t end)>;

  // Calls `found` for each section of `text` (valid UTF-8), in order; none is empty. A token is
  // only found where it is allowed; none: everywhere.
  void Split(std::string_view text,
             const std::function<void(const Section&)>& found,
             const Allowed& allowed = nullptr) const;

 private:
  struct Match {
    size_t token = 0;  // in tokens_
    size_t end = 0;    // 0: no match
  };
  [[nodiscard]] Match LongestAt(std::string_view text, size_t begin, const Allowed& allowed) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};  // bytes with which a token begins
  Trie trie_;                       // content -> index into tokens_
};

}  // namespace kvc::tokenizer
