#include "core/tokenizer/added.h"

#include <algorithm>

#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

bool EndsWithWord(std::string_view text) {
  if (text.empty()) return false;
  size_t at = CharacterBefore(text, text.size());
  return IsWord(NextCodePoint(text, at));
}

bool StartsWithWord(std::string_view text) {
  size_t at = 0;
  return !text.empty() && IsWord(NextCodePoint(text, at));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    begins_[static_cast<uint8_t>(content[0])] = true;
    trie_.Add(content, static_cast<int32_t>(i));
  }
}

AddedTokenFinder::Match AddedTokenFinder::LongestAt(std::string_view text,
                                                    size_t begin,
                                                    const Allowed& allowed) const {
  Match longest;
  trie_.ForEachPrefix(text.substr(begin), [&](int32_t token, size_t length) {
    if (allowed && !allowed(tokens_[static_cast<size_t>(token)], begin, begin + length)) return;
    longest = {static_cast<size_t>(token), begin + length};
  });
  return longest;
}

void AddedTokenFinder::Split(std::string_view text,
                             const std::function<void(const Section&)>& found,
                             const Allowed& allowed) const {
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
    const Match match = LongestAt(text, at, allowed);
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
