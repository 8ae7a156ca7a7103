#include "core/tokenizer/trie.h"

#include <utility>

namespace kvc::tokenizer {
namespace {

uint64_t EdgeKey(uint32_t node, uint8_t byte) { return ((uint64_t{node} << 8) | byte) + 1; }

}  // namespace

Trie::Trie() : edges_(64), values_(1, -1) {}

size_t Trie::SlotOf(uint64_t key) const {
  // Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
  const size_t mask = edges_.size() - 1;
  size_t slot = ((key * 0x9E3779B97F4A7C15U) >> 32) & mask;
  while (edges_[slot].key != key && edges_[slot].key != 0) slot = (slot + 1) & mask;
  return slot;
}

uint32_t Trie::Child(uint32_t node, uint8_t byte) const {
  return edges_[SlotOf(EdgeKey(node, byte))].child;
}

void Trie::Grow() {
  std::vector<Edge> old(2 * edges_.size());
  std::swap(old, edges_);
  for (const Edge& edge : old) {
    if (edge.key != 0) edges_[SlotOf(edge.key)] = edge;
  }
}

void Trie::Add(std::string_view key, int32_t value) {
  if (key.empty()) return;
  uint32_t node = 0;
  for (const char byte : key) {
    if (2 * values_.size() >= edges_.size()) Grow();  // an edge leads to every node but the root
    const uint64_t edge_key = EdgeKey(node, static_cast<uint8_t>(byte));
    Edge& edge = edges_[SlotOf(edge_key)];
    if (edge.key == 0) {
      edge = {edge_key, static_cast<uint32_t>(values_.size())};
      values_.push_back(-1);
    }
    node = edge.child;
  }
  if (values_[node] < 0) values_[node] = value;
}

}  // namespace kvc::tokenizer
