#pragma once
// The file format of SentencePiece, tokenizer.model: a message ModelProto in the wire format of
// protocol buffers (sentencepiece_model.proto), of which kvc reads what a tokenizer needs.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvc::tokenizer {

struct SentencePieceFile {
  enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string text;
    float score = 0.0F;
    PieceType type = PieceType::kNormal;
  };
  enum class ModelType { kUnigram = 1, kBpe, kWords, kCharacters };

  std::vector<Piece> pieces;  // [id]
  ModelType model_type = ModelType::kUnigram;
  bool byte_fallback = false;
  int64_t unk_id = 0;
  int64_t bos_id = 1;  // below 0: none
  int64_t eos_id = 2;
  std::string unk_piece = "<unk>";
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  std::string charsmap;  // core/tokenizer/charsmap.h; empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Throws kBadInput, naming `origin`, for bytes that are no ModelProto, a model without pieces, and
// pieces that are empty, not UTF-8, of a type that is not listed above or of a score that is NaN or
// an infinity.
[[nodiscard]] SentencePieceFile ParseSentencePiece(std::string_view bytes,
                                                   const std::string& origin);

}  // namespace kvc::tokenizer
