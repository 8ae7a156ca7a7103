// The tokenizer of a tokenizer.model, by the SentencePiece library
// (core/tokenizer/sentencepiece_model.h).

#include <utility>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/text_input.h"
#include "core/tokenizer/hf.h"
#include "core/tokenizer/sentencepiece_model.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxFileBytes = 256 << 20;

std::optional<int32_t> IfValid(int id) {
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

constexpr std::string_view kMetaspace = "\u2581";
// Chunks are long enough that the cost of a cut is lost in the noise, and short enough for the L1
// cache.
constexpr size_t kChunkBytes = 2048;

bool IsAsciiLetterOrDigit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Returns true when "x y" has the ids of "x" followed by those of "y", where x ends and y begins
// with a letter or digit. That is so when no piece reaches across a space and each text gets a
// space before it (add_dummy_prefix). SentencePiece takes a text as one word: a megabyte at once is
// ten times slower than in chunks.
bool MayCutAtSpaces(const SentencePieceModel& model) {
  for (int id = 0; id < model.size(); ++id) {
    const std::string piece = model.IdToPiece(id);
    size_t begin = 0;
    while (std::string_view(piece).substr(begin).starts_with(kMetaspace)) {
      begin += kMetaspace.size();
    }
    if (piece.find(kMetaspace, begin) != std::string::npos) return false;
    if (piece.find(' ') != std::string::npos) return false;
  }
  std::vector<int> parts;
  std::vector<int> ids;
  std::string error;
  for (const char* part : {"Hello", "0", "a", "World", "2x"}) {
    if (!model.Encode(part, ids, error)) return false;
    parts.insert(parts.end(), ids.begin(), ids.end());
  }
  return model.Encode("Hello 0 a World 2x", ids, error) && ids == parts;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<SentencePieceModel> model, const TokenizerConfig& config)
      : model_(std::move(model)),
        bos_id_(IfValid(model_->bos_id())),
        eos_id_(IfValid(model_->eos_id())),
        adds_bos_(config.add_bos_token.value_or(true)),
        adds_eos_(config.add_eos_token.value_or(false)),
        cuts_(MayCutAtSpaces(*model_)) {}

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text,
                                            SpecialTokens special) const override {
    CheckUtf8(text, "text to encode");
    const bool adds = special == SpecialTokens::kAdd;
    std::vector<int32_t> ids;
    if (adds && adds_bos_ && bos_id_) ids.push_back(*bos_id_);
    while (text.size() > kChunkBytes) {
      const size_t space = CutFrom(text, kChunkBytes);
      if (space == std::string_view::npos) break;
      AppendIds(text.substr(0, space), ids);
      text.remove_prefix(space + 1);  // the dummy prefix of the next chunk is this space
    }
    AppendIds(text, ids);
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
    KVC_CHECK(model_->Decode(known, text, error), kInternal, "SentencePiece: {}", error);
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
  // The first space from `begin` on at which the text may be cut; npos: none.
  [[nodiscard]] size_t CutFrom(std::string_view text, size_t begin) const {
    if (!cuts_) return std::string_view::npos;
    for (size_t at = text.find(' ', begin); at < text.size() - 1; at = text.find(' ', at + 1)) {
      if (IsAsciiLetterOrDigit(text[at - 1]) && IsAsciiLetterOrDigit(text[at + 1])) return at;
    }
    return std::string_view::npos;
  }
  void AppendIds(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> pieces;
    std::string error;
    KVC_CHECK(model_->Encode(text, pieces, error), kInternal, "SentencePiece: {}", error);
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  std::unique_ptr<SentencePieceModel> model_;
  std::optional<int32_t> bos_id_;
  std::optional<int32_t> eos_id_;
  bool adds_bos_;
  bool adds_eos_;
  bool cuts_;
};

}  // namespace

std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file) {
  const std::string origin = file.string();
  auto model = OpenSentencePieceModel(ReadFile(file, kMaxFileBytes), origin);
  const TokenizerConfig config = ReadTokenizerConfig(file.parent_path());
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(model), config);
  for (const AddedToken& token : config.added_tokens) {
    KVC_CHECK(tokenizer->TokenId(token.content) == token.id, kUnsupported,
              "{}: added token \"{}\" (id {}) of tokenizer_config.json, which the model does not "
              "have, is not supported without tokenizer.json",
              origin, token.content, token.id);
  }
  return tokenizer;
}

}  // namespace kvc::tokenizer
