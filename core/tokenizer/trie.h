#pragma once
// A prefix tree over byte strings, for finding the tokens that begin at a place of a text.

#include <cstdint>
#include <string_view>
#include <vector>

namespace kvc::tokenizer {

class Trie {
 public:
  Trie();
  // Gives `key` a value of at least 0. The first value of a key stays; an empty key is ignored.
  void Add(std::string_view key, int32_t value);

  // Calls found(value, length) for every key that `text` begins with, the shortest first.
  template <class Found>
  void ForEachPrefix(std::string_view text, const Found& found) const {
    uint32_t node = 0;
    for (size_t at = 0; at < text.size(); ++at) {
      node = Child(node, static_cast<uint8_t>(text[at]));
      if (node == 0) return;
      if (values_[node] >= 0) found(values_[node], at + 1);
    }
  }

 private:
  struct Edge {
    uint64_t key = 0;    // node << 8 | byte, plus one; 0: an empty slot
    uint32_t child = 0;  // the root is no child, hence 0: none
  };
  [[nodiscard]] size_t SlotOf(uint64_t key) const;
  [[nodiscard]] uint32_t Child(uint32_t node, uint8_t byte) const;
  void Grow();

  std::vector<Edge> edges_;      // open addressing; a power of two, at most half full
  std::vector<int32_t> values_;  // [node]; -1: no key ends there
};

}  // namespace kvc::tokenizer
