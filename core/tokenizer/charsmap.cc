#include "core/tokenizer/charsmap.h"

#include <cstring>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr size_t kUnitBytes = sizeof(uint32_t);
constexpr size_t kShortCluster = 5;  // bytes

// The parts of a unit of Darts-clone.
bool HasLeaf(uint32_t unit) { return ((unit >> 8) & 1U) != 0; }
uint32_t LeafValue(uint32_t unit) { return unit & 0x7fffffffU; }
uint32_t Label(uint32_t unit) { return unit & 0x800000ffU; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200U) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view bytes, const std::string& origin) {
  KVC_CHECK(bytes.size() >= kUnitBytes, kBadInput,
            "{}: expected a table of normalizations, got {} bytes", origin, bytes.size());
  uint32_t trie_bytes = 0;
  std::memcpy(&trie_bytes, bytes.data(), kUnitBytes);
  bytes.remove_prefix(kUnitBytes);
  KVC_CHECK(trie_bytes > 0 && trie_bytes % kUnitBytes == 0 && trie_bytes <= bytes.size(), kBadInput,
            "{}: expected a trie of whole units within {} bytes, got {} bytes", origin,
            bytes.size(), trie_bytes);
  units_.resize(trie_bytes / kUnitBytes);
  std::memcpy(units_.data(), bytes.data(), trie_bytes);
  replacements_ = bytes.substr(trie_bytes);
  KVC_CHECK(IsUtf8(replacements_), kBadInput, "{}: expected replacements in UTF-8, got other bytes",
            origin);
}

std::optional<std::string_view> Charsmap::Replacement(std::string_view part) const {
  size_t node = Offset(units_[0]);
  for (const char byte : part) {
    if (byte == '\0') return std::nullopt;
    node ^= static_cast<uint8_t>(byte);
    if (node >= units_.size() || Label(units_[node]) != static_cast<uint8_t>(byte)) {
      return std::nullopt;
    }
    const uint32_t unit = units_[node];
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    if (node >= units_.size()) return std::nullopt;
    const size_t begin = LeafValue(units_[node]);
    const bool starts_character =
        begin < replacements_.size() && (static_cast<uint8_t>(replacements_[begin]) & 0xC0) != 0x80;
    if (!starts_character) return std::nullopt;
    return std::string_view(replacements_.c_str() + begin);  // up to its null byte
  }
  return std::nullopt;
}

void Charsmap::AppendCluster(std::string_view cluster, std::string& text) const {
  if (cluster.size() <= kShortCluster) {
    if (const auto whole = Replacement(cluster)) {
      text += *whole;
      return;
    }
  }
  for (size_t at = 0; at < cluster.size();) {
    const std::string_view character = cluster.substr(at, CharacterBytes(cluster[at]));
    text += Replacement(character).value_or(character);
    at += character.size();
  }
}

std::string Charsmap::Apply(std::string_view text) const {
  std::string normalized;
  normalized.reserve(text.size());
  ForEachGrapheme(text, [&](std::string_view cluster) { AppendCluster(cluster, normalized); });
  return normalized;
}

}  // namespace kvc::tokenizer
