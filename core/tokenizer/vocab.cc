#include "core/tokenizer/vocab.h"

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;
constexpr size_t kMaxDepth = 32;
// The most keys of an object that is not the vocabulary: a real file has a few dozen.
constexpr size_t kMaxKeys = 10000;

// Builds a Json from the parser's events, and keeps the entries of the vocabulary apart.
class Handler final : public nlohmann::json_sax<Json> {
 public:
  Handler(const std::string& origin, const std::vector<std::string>& vocabulary_path)
      : origin_(origin), vocabulary_path_(vocabulary_path) {}

  VocabularyJson Take() { return {std::move(vocabulary_), std::move(root_)}; }

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(int64_t value) override { return Integer(value); }
  bool number_unsigned(uint64_t value) override {
    constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
    return value > kMost ? Value(value) : Integer(static_cast<int64_t>(value));
  }
  bool number_float(double value, const std::string& /*text*/) override { return Value(value); }
  bool string(std::string& value) override { return Value(std::move(value)); }
  bool binary(Json::binary_t& /*value*/) override { return false; }

  bool start_object(size_t /*size*/) override {
    const bool is_vocabulary = arrays_ == 0 && keys_ == vocabulary_path_;
    Open(Json::object());
    in_vocabulary_ = is_vocabulary;
    return true;
  }
  bool key(std::string& key) override {
    if (in_vocabulary_) {
      token_ = std::move(key);
      return true;
    }
    KVC_CHECK(stack_.back()->size() < kMaxKeys, kBadInput,
              "{}: expected at most {} keys in an object, got more", origin_, kMaxKeys);
    keys_.back() = std::move(key);
    return true;
  }
  bool end_object() override {
    in_vocabulary_ = false;
    return Close();
  }
  bool start_array(size_t /*size*/) override {
    Open(Json::array());
    ++arrays_;
    return true;
  }
  bool end_array() override {
    --arrays_;
    return Close();
  }
  bool parse_error(size_t /*position*/,
                   const std::string& /*last_token*/,
                   const nlohmann::detail::exception& error) override {
    KVC_THROW(kBadInput, "{}: expected JSON, got a syntax error: {}", origin_, error.what());
  }

 private:
  bool Integer(int64_t value) {
    if (!in_vocabulary_) return Value(value);
    vocabulary_.emplace_back(std::move(token_), value);
    return true;
  }
  bool Value(Json&& value) {
    CheckOutsideVocabulary();
    Place(std::move(value));
    return true;
  }
  // Inside the vocabulary, only an integer is an entry.
  void CheckOutsideVocabulary() const {
    KVC_CHECK(!in_vocabulary_, kBadInput,
              "{}: vocabulary: id of \"{}\": expected an integer, got something else", origin_,
              token_);
  }
  Json& Place(Json&& value) {
    if (stack_.empty()) return root_ = std::move(value);
    Json& parent = *stack_.back();
    if (parent.is_object()) return parent[keys_.back()] = std::move(value);
    parent.push_back(std::move(value));
    return parent.back();
  }
  void Open(Json&& container) {
    CheckOutsideVocabulary();
    KVC_CHECK(stack_.size() < kMaxDepth, kBadInput,
              "{}: expected values nested at most {} deep, got more", origin_, kMaxDepth);
    stack_.push_back(&Place(std::move(container)));
    keys_.emplace_back();
  }
  bool Close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  const std::string& origin_;
  const std::vector<std::string>& vocabulary_path_;
  TokenList vocabulary_;
  Json root_;
  std::vector<Json*> stack_;       // the open containers
  std::vector<std::string> keys_;  // the latest key in each of them
  int arrays_ = 0;                 // how many of them are arrays
  bool in_vocabulary_ = false;
  std::string token_;  // the latest key in the vocabulary
};

}  // namespace

Vocabulary::Vocabulary(TokenList tokens, const std::string& origin) : tokens_(std::move(tokens)) {
  ids_.reserve(tokens_.size());
  positions_.reserve(tokens_.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const auto& [token, id] = tokens_[i];
    KVC_CHECK(id >= 0 && id <= kMaxId, kBadInput,
              "{}: vocabulary: id of \"{}\": expected 0 to {}, got {}", origin, token, kMaxId, id);
    const auto id32 = static_cast<int32_t>(id);
    KVC_CHECK(ids_.emplace(token, id32).second, kBadInput,
              "{}: vocabulary: token \"{}\": expected once, got twice", origin, token);
    max_id_ = std::max(max_id_, id);
    const auto [place, is_new] = positions_.emplace(id32, i);
    KVC_CHECK(is_new, kBadInput, "{}: vocabulary: id {}: expected one token, got \"{}\" and \"{}\"",
              origin, id, tokens_[place->second].first, token);
  }
}

int32_t Vocabulary::Id(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string* Vocabulary::Token(int32_t id) const {
  const auto found = positions_.find(id);
  return found == positions_.end() ? nullptr : &tokens_[found->second].first;
}

VocabularyJson ParseVocabularyJson(std::string_view text,
                                   const std::string& origin,
                                   const std::vector<std::string>& vocabulary_path) {
  Handler handler(origin, vocabulary_path);
  Json::sax_parse(text, &handler);
  return handler.Take();
}

}  // namespace kvc::tokenizer
