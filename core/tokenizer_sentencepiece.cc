// tokenizer.model, by the SentencePiece library (core/sentencepiece_model.h).

#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/sentencepiece_model.h"
#include "core/text_input.h"
#include "core/tokenizer_hf.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxFileBytes = 256 << 20;

std::optional<int32_t> IfValid(int id) {
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model, const TokenizerConfig& config)
      : model_(std::move(model)),
        bos_id_(IfValid(model_->bos_id())),
        eos_id_(IfValid(model_->eos_id())),
        adds_bos_(config.add_bos_token.value_or(true)),
        adds_eos_(config.add_eos_token.value_or(false)) {}

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text,
                                            SpecialTokens special) const override {
    CheckUtf8(text, "text to encode");
    std::vector<int> pieces;
    std::string error;
    KVC_CHECK(model_->Encode(text, pieces, error), kInternal, "SentencePiece: ", error);
    const bool adds = special == SpecialTokens::kAdd;
    std::vector<int32_t> ids;
    ids.reserve(pieces.size() + 2);
    if (adds && adds_bos_ && bos_id_) ids.push_back(*bos_id_);
    ids.insert(ids.end(), pieces.begin(), pieces.end());
    if (adds && adds_eos_ && eos_id_) ids.push_back(*eos_id_);
    return ids;
  }

  [[nodiscard]] std::string Decode(std::span<const int32_t> ids) const override {
    std::vector<int> known;
    known.reserve(ids.size());
    for (const int32_t id : ids) {
      if (id >= 0 && id < model_->size()) known.push_back(id);
    }
    std::string text;
    std::string error;
    KVC_CHECK(model_->Decode(known, text, error), kInternal, "SentencePiece: ", error);
    return text;
  }

  [[nodiscard]] int64_t vocab_size() const override { return model_->size(); }
  [[nodiscard]] std::optional<int32_t> TokenId(std::string_view token) const override {
    const int id = model_->PieceToId(token);  // that of <unk> for what is no piece
    const bool known = id >= 0 && id < model_->size();
    return known && model_->IdToPiece(id) == token ? IfValid(id) : std::nullopt;
  }
  [[nodiscard]] std::optional<int32_t> bos_id() const override { return bos_id_; }
  [[nodiscard]] std::optional<int32_t> eos_id() const override { return eos_id_; }

 private:
  std::unique_ptr<SentencePieceModel> model_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  bool adds_bos_;
  bool adds_eos_;
};

}  // namespace

std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file) {
  const std::string origin = file.string();
  auto model = OpenSentencePieceModel(ReadFile(file, kMaxFileBytes), origin);
  const TokenizerConfig config = ReadTokenizerConfig(file.parent_path());
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(model), config);
  for (const AddedToken& token : config.added_tokens) {
    KVC_CHECK(tokenizer->TokenId(token.content) == token.id,
              kUnsupported,
              origin,
              ": added token \"",
              token.content,
              "\" (id ",
              token.id,
              ") of tokenizer_config.json, which the model does not have, is not supported without "
              "tokenizer.json");
  }
  return tokenizer;
}

}  // namespace kvc::tokenizer
