#include "core/tokenizer/special_tokens.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

namespace kvc::tokenizer {
namespace {

// A list of added tokens that grows as the AddedVocabulary of Hugging Face's tokenizers does.
class Adder {
 public:
  Adder(const Vocabulary& vocabulary, std::vector<AddedToken>& tokens)
      : vocabulary_(vocabulary), tokens_(tokens) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      places_.emplace(tokens_[i].content, i);
      max_id_ = std::max<int64_t>(max_id_, tokens_[i].id);
    }
  }

  void Add(AddedToken token, bool replaces_flags) {
    if (token.content.empty()) return;
    const auto known = places_.find(token.content);
    if (known != places_.end()) {
      AddedToken& before = tokens_[known->second];
      token.id = before.id;
      if (replaces_flags) before = token;
      return;
    }
    token.id = IdOf(token.content);
    max_id_ = std::max<int64_t>(max_id_, token.id);
    places_.emplace(token.content, tokens_.size());
    tokens_.push_back(std::move(token));
  }

 private:
  [[nodiscard]] int32_t IdOf(const std::string& content) const {
    const int32_t id = vocabulary_.Id(content);
    if (id >= 0) return id;
    const int64_t next = max_id_ >= vocabulary_.size() ? max_id_ + 1 : vocabulary_.size();
    // A vocabulary with holes has ids beyond its size.
    return static_cast<int32_t>(std::max(next, vocabulary_.max_id() + 1));
  }

  const Vocabulary& vocabulary_;
  std::vector<AddedToken>& tokens_;
  std::unordered_map<std::string, size_t> places_;  // content -> index into tokens_
  int64_t max_id_ = -1;
};

}  // namespace

void AddConfiguredTokens(const TokenizerConfig& config,
                         const Vocabulary& vocabulary,
                         std::vector<AddedToken>& tokens) {
  Adder adder(vocabulary, tokens);
  for (const AddedToken& token : config.added_tokens) adder.Add(token, true);
  for (const NamedToken& named : config.named_tokens) {
    if (named.token) adder.Add(*named.token, false);
  }
  for (const AddedToken& token : config.extra_tokens) adder.Add(token, false);
}

}  // namespace kvc::tokenizer
