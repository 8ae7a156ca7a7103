#include "core/tokenizer/added.h"

#include <algorithm>

#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

// The start of the character that ends at `end` > 0.
size_t CharacterBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool EndsWithWord(std::string_view text) {
  if (text.empty()) return false;
  size_t at = CharacterBefore(text, text.size());
  return IsWord(NextCodePoint(text, at));
}

bool StartsWithWord(std::string_view text) {
  size_t at = 0;
  return !text.empty() && IsWord(NextCodePoint(text, at));
}

// The start of the white space that ends at `end`.
size_t SpaceBegin(std::string_view text, size_t end) {
  while (end > 0) {
    const size_t begin = CharacterBefore(text, end);
    size_t at = begin;
    if (!IsSpace(NextCodePoint(text, at))) break;
    end = begin;
  }
  return end;
}

// The end of the white space that begins at `begin`.
size_t SpaceEnd(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t at = begin;
    if (!IsSpace(NextCodePoint(text, at))) break;
    begin = at;
  }
  return begin;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  token_at_.push_back(-1);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    begins_[static_cast<uint8_t>(content[0])] = true;
    uint32_t node = 0;
    for (const char byte : content) {
      const uint64_t edge = (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
      const auto [child, is_new] = children_.emplace(edge, static_cast<uint32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = child->second;
    }
    if (token_at_[node] < 0) token_at_[node] = static_cast<int64_t>(i);
  }
}

AddedTokenFinder::Match AddedTokenFinder::LongestAt(std::string_view text, size_t begin) const {
  Match longest;
  uint32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const uint64_t edge = (uint64_t{node} << 8) | static_cast<uint8_t>(text[at]);
    const auto child = children_.find(edge);
    if (child == children_.end()) break;
    node = child->second;
    if (token_at_[node] >= 0) longest = {static_cast<size_t>(token_at_[node]), at + 1};
  }
  return longest;
}

void AddedTokenFinder::Split(std::string_view text,
                             const std::function<void(const Section&)>& found) const {
  size_t done = 0;  // the text before it has been handed out
  size_t at = 0;
  const auto hand_out = [&](int32_t id, size_t begin, size_t end) {
    if (end > begin) found({id, begin, text.substr(begin, end - begin)});
  };
  while (at < text.size()) {
    if (!begins_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const Match match = LongestAt(text, at);
    if (match.end == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    size_t begin = at;
    size_t end = match.end;
    at = match.end;
    if (token.single_word &&
        (EndsWithWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) {
      continue;
    }
    // White space that the token before has taken is not taken again.
    if (token.lstrip) begin = SpaceBegin(text, begin);
    begin = std::max(begin, done);
    if (token.rstrip) end = SpaceEnd(text, end);
    hand_out(-1, done, begin);
    hand_out(token.id, begin, end);
    done = std::max(done, end);
  }
  hand_out(-1, done, text.size());
}

}  // namespace kvc::tokenizer
