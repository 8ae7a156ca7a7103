#include "core/tokenizer/hf.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <utility>

#include "core/base/error.h"
#include "core/io/text_input.h"
#include "core/tokenizer/special_tokens.h"

namespace kvc::tokenizer {
namespace {

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();

class HfTokenizer final : public Tokenizer {
 public:
  HfTokenizer(Pipeline pipeline, const TokenizerConfig& config, const std::string& origin)
      : pipeline_(std::move(pipeline)) {
    AddConfiguredTokens(config, pipeline_.model->vocabulary(), pipeline_.added_tokens);
    IndexAddedTokens(origin);
    bos_id_ = ConfiguredId(config.Text("bos_token"));
    eos_id_ = ConfiguredId(config.Text("eos_token"));
    if (pipeline_.prefix.empty() && pipeline_.suffix.empty()) {
      if (config.add_bos_token.value_or(false) && bos_id_) pipeline_.prefix.push_back(*bos_id_);
      if (config.add_eos_token.value_or(false) && eos_id_) pipeline_.suffix.push_back(*eos_id_);
    }
    for (const auto* ids : {&pipeline_.prefix, &pipeline_.suffix}) {
      for (const int32_t id : *ids) {
        KVC_CHECK(TokenText(id) != nullptr, kBadInput,
                  "{}: post_processor: expected ids of the vocabulary, got {}", origin, id);
      }
    }
  }

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text,
                                            SpecialTokens special) const override {
    CheckText(text);
    const bool adds = special == SpecialTokens::kAdd;
    std::vector<int32_t> ids;
    if (adds) ids = pipeline_.prefix;
    const std::unique_ptr<Encoder> encoder = pipeline_.model->NewEncoder();
    raw_finder_.Split(text, [&](const Section& section) {
      if (section.id >= 0) {
        ids.push_back(section.id);
      } else {
        EncodeSection(section, normalized_finder_, *encoder, ids);
      }
    });
    if (adds) ids.insert(ids.end(), pipeline_.suffix.begin(), pipeline_.suffix.end());
    return ids;
  }

  [[nodiscard]] std::vector<int32_t> EncodeParts(std::span<const TextPart> parts) const override {
    std::string text;
    std::vector<ByteRange> controls;
    for (const TextPart& part : parts) {
      if (part.control) controls.push_back({text.size(), text.size() + part.text.size()});
      text += part.text;
    }
    CheckText(text);
    const auto allowed = [&](const AddedToken& token, size_t begin, size_t end) {
      return !token.special || std::ranges::any_of(controls, [&](const ByteRange& part) {
        return part.begin <= begin && end <= part.end;
      });
    };
    // All special tokens are searched in the text itself, where it is known what is trusted.
    std::vector<AddedToken> raw;
    std::vector<AddedToken> normalized;
    for (const AddedToken& token : pipeline_.added_tokens) {
      (token.special || !token.normalized ? raw : normalized).push_back(token);
    }
    const AddedTokenFinder normalized_finder(Normalized(std::move(normalized)));
    std::vector<int32_t> ids;
    const std::unique_ptr<Encoder> encoder = pipeline_.model->NewEncoder();
    AddedTokenFinder(raw).Split(
        text,
        [&](const Section& section) {
          if (section.id >= 0) {
            ids.push_back(section.id);
          } else {
            EncodeSection(section, normalized_finder, *encoder, ids);
          }
        },
        allowed);
    return ids;
  }

  [[nodiscard]] std::string Decode(std::span<const int32_t> ids) const override {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const int32_t id : ids) {
      const std::string* token = TokenText(id);
      if (token != nullptr) tokens.push_back(*token);
    }
    std::string text;
    if (pipeline_.decoder != nullptr) pipeline_.decoder->Apply(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0 && pipeline_.decoder == nullptr) text += ' ';
      text += tokens[i];
    }
    return text;
  }

  [[nodiscard]] int64_t vocab_size() const override { return vocab_size_; }
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view token) const override {
    const auto added = added_ids_.find(token);
    if (added != added_ids_.end()) return added->second;
    const int32_t id = pipeline_.model->vocabulary().Id(token);
    return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
  }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return bos_id_; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return eos_id_; }

 private:
  static void CheckText(std::string_view text) {
    CheckUtf8(text, "text to encode");
    KVC_CHECK(text.size() <= kMaxTextBytes, kBadInput,
              "text to encode: expected at most {} bytes, got {}", kMaxTextBytes, text.size());
  }

  // Returns the tokens by the contents that they have in normalized text.
  [[nodiscard]] std::vector<AddedToken> Normalized(std::vector<AddedToken> tokens) const {
    for (AddedToken& token : tokens) {
      if (pipeline_.normalizer != nullptr) {
        bool starts = true;
        token.content = pipeline_.normalizer->Apply(token.content, starts);
      }
    }
    return tokens;
  }

  void IndexAddedTokens(const std::string& origin) {
    const Vocabulary& vocabulary = pipeline_.model->vocabulary();
    vocab_size_ = vocabulary.max_id() + 1;
    std::vector<AddedToken> raw;
    std::vector<AddedToken> normalized;
    for (const AddedToken& token : pipeline_.added_tokens) {
      const int32_t model_id = vocabulary.Id(token.content);
      const std::string* model_token = vocabulary.Token(token.id);
      KVC_CHECK(model_id < 0 || model_id == token.id, kBadInput,
                "{}: added token \"{}\": expected the vocabulary's id {}, got {}", origin,
                token.content, model_id, token.id);
      KVC_CHECK(model_token == nullptr || model_id == token.id, kBadInput,
                "{}: added token \"{}\": expected an id of its own, got {}, which is \"{}\"",
                origin, token.content, token.id, *model_token);
      const bool is_new = added_ids_.emplace(token.content, token.id).second &&
                          added_texts_.emplace(token.id, token.content).second;
      KVC_CHECK(
          is_new, kBadInput,
          "{}: added token \"{}\" (id {}): expected content and id once, got one of them twice",
          origin, token.content, token.id);
      vocab_size_ = std::max<int64_t>(vocab_size_, token.id + 1);
      (token.normalized ? normalized : raw).push_back(token);
    }
    normalized = Normalized(std::move(normalized));
    for (const AddedToken& token : normalized) {
      added_texts_[token.id] = token.content;  // also what it decodes to
    }
    raw_finder_ = AddedTokenFinder(raw);
    normalized_finder_ = AddedTokenFinder(normalized);
  }

  // Every token of the configuration has been added.
  [[nodiscard]] std::optional<int32_t> ConfiguredId(const std::string& token) const {
    return token.empty() ? std::nullopt : TokenId(token);
  }

  [[nodiscard]] const std::string* TokenText(int32_t id) const {
    const auto added = added_texts_.find(id);
    return added != added_texts_.end() ? &added->second : pipeline_.model->vocabulary().Token(id);
  }

  void EncodeSection(const Section& raw,
                     const AddedTokenFinder& finder,
                     Encoder& encoder,
                     std::vector<int32_t>& ids) const {
    bool starts = raw.begin == 0;
    const std::string normalized = pipeline_.normalizer == nullptr
                                       ? std::string(raw.text)
                                       : pipeline_.normalizer->Apply(std::string(raw.text), starts);
    finder.Split(normalized, [&](const Section& section) {
      if (section.id >= 0) {
        ids.push_back(section.id);
        return;
      }
      Pieces pieces{
          std::string(section.text), {{0, section.text.size()}}, starts && section.begin == 0};
      if (pipeline_.pre_tokenizer != nullptr) pipeline_.pre_tokenizer->Apply(pieces);
      for (const ByteRange& range : pieces.ranges) {
        encoder.Append(std::string_view(pieces.text).substr(range.begin, range.end - range.begin),
                       ids);
      }
    });
  }

  Pipeline pipeline_;
  std::unordered_map<std::string_view, int32_t> added_ids_;  // views into pipeline_
  std::unordered_map<int32_t, std::string> added_texts_;
  AddedTokenFinder raw_finder_;
  AddedTokenFinder normalized_finder_;
  int64_t vocab_size_ = 0;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
};

}  // namespace

std::unique_ptr<Tokenizer> MakeHfTokenizer(Pipeline pipeline,
                                           const TokenizerConfig& config,
                                           const std::string& origin) {
  return std::make_unique<HfTokenizer>(std::move(pipeline), config, origin);
}

}  // namespace kvc::tokenizer
