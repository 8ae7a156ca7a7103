#pragma once
// A tokenizer for tests that need one but no vocabulary.

#include <map>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc::testing {

// One id for each word with its leading space, and for each other character. With `marks`, it puts
// a marker in front of a text, as Metaspace tokenizers do, which must not appear inside a prompt.
class WordTokenizer : public Tokenizer {
 public:
  explicit WordTokenizer(bool marks = false, bool has_bos = false)
      : marks_(marks), has_bos_(has_bos) {}

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text,
                                            SpecialTokens special) const override {
    std::vector<int32_t> ids;
    if (special == SpecialTokens::kAdd && has_bos_) ids.push_back(Id("<bos>"));
    if (marks_ && !text.empty()) ids.push_back(Id("<mark>"));
    for (size_t i = 0; i < text.size();) {
      size_t end = i + 1;
      while (end < text.size() && IsLetter(text[end]) && (IsLetter(text[i]) || text[i] == ' ')) {
        ++end;
      }
      ids.push_back(Id(std::string(text.substr(i, end - i))));
      i = end;
    }
    return ids;
  }
  [[nodiscard]] std::string Decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += pieces_[static_cast<size_t>(id)];
    return text;
  }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view token) const override {
    return Id(std::string(token));
  }
  [[nodiscard]] std::optional<int32_t> bos_id() const override {
    return has_bos_ ? std::optional<int32_t>(Id("<bos>")) : std::nullopt;
  }
  std::optional<int32_t> eos_id() const override { return std::nullopt; }

 private:
  static bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  [[nodiscard]] int32_t Id(const std::string& piece) const {
    const auto [place, is_new] = ids_.try_emplace(piece, static_cast<int32_t>(pieces_.size()));
    if (is_new) pieces_.push_back(piece);
    return place->second;
  }

  bool marks_;
  bool has_bos_;
  mutable std::map<std::string, int32_t> ids_;
  mutable std::vector<std::string> pieces_;
};

}  // namespace kvc::testing
