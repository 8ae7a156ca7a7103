#include "core/tokenizer/sentencepiece_file.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

using PieceType = SentencePieceFile::PieceType;
using ModelType = SentencePieceFile::ModelType;

// A field of a message: its number, and its value by the wire type.
struct Field {
  uint64_t number = 0;
  int wire_type = 0;
  uint64_t integer = 0;    // 0 (varint), 1 (8 bytes), 5 (4 bytes)
  std::string_view bytes;  // 2 (length-delimited)
};

// Reads the fields of a message one after the other.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  // The next field; none at the end.
  std::optional<Field> Next() {
    if (bytes_.empty()) return std::nullopt;
    const uint64_t tag = Varint();
    Field field{tag >> 3, static_cast<int>(tag & 7U), 0, {}};
    switch (field.wire_type) {
      case 0:
        field.integer = Varint();
        break;
      case 1:
        field.integer = Fixed(8);
        break;
      case 2:
        field.bytes = Take(Varint());
        break;
      case 5:
        field.integer = Fixed(4);
        break;
      default:
        Refuse();
    }
    if (field.number == 0) Refuse();
    return field;
  }

  [[noreturn]] void Refuse() const {
    KVC_THROW(
        kBadInput,
        "{}: expected a SentencePiece model, got another file or a broken one; fetch it again",
        origin_);
  }

 private:
  std::string_view Take(uint64_t count) {
    if (count > bytes_.size()) Refuse();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  uint64_t Fixed(size_t count) {
    uint64_t value = 0;
    std::memcpy(&value, Take(count).data(), count);
    return value;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(Take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if ((byte & 0x80U) == 0) return value;
    }
    Refuse();
  }

  std::string_view bytes_;
  const std::string& origin_;
};

// Calls take(field) for each field of a message.
template <class TakeField>
void ForEachField(std::string_view bytes, const std::string& origin, const TakeField& take) {
  Message message(bytes, origin);
  while (const std::optional<Field> field = message.Next()) take(*field);
}

float FloatOf(const Field& field) {
  const auto bits = static_cast<uint32_t>(field.integer);
  float value = 0.0F;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// int32 is written as 64 bits.
int64_t IntOf(const Field& field) {
  return static_cast<int32_t>(static_cast<uint32_t>(field.integer));
}

SentencePieceFile::Piece ParsePiece(std::string_view bytes, size_t id, const std::string& origin) {
  SentencePieceFile::Piece piece;
  uint64_t type = 1;
  ForEachField(bytes, origin, [&](const Field& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = FloatOf(field);
    if (field.number == 3) type = field.integer;
  });
  KVC_CHECK(!piece.text.empty() && IsUtf8(piece.text), kBadInput,
            "{}: piece {}: expected a text in UTF-8, got {}", origin, id,
            piece.text.empty() ? "an empty one" : "other bytes");
  KVC_CHECK(std::isfinite(piece.score), kBadInput,
            "{}: piece {} (\"{}\"): expected a finite score, got {}", origin, id, piece.text,
            piece.score);
  KVC_CHECK(type >= 1 && type <= 6, kBadInput,
            "{}: piece {} (\"{}\"): expected a type of 1 to 6, got {}", origin, id, piece.text,
            type);
  piece.type = static_cast<PieceType>(type);
  return piece;
}

// TrainerSpec.
void ParseTrainer(std::string_view bytes, const std::string& origin, SentencePieceFile& file) {
  uint64_t model_type = 1;
  ForEachField(bytes, origin, [&](const Field& field) {
    switch (field.number) {
      case 3:
        model_type = field.integer;
        break;
      case 35:
        file.byte_fallback = field.integer != 0;
        break;
      case 40:
        file.unk_id = IntOf(field);
        break;
      case 41:
        file.bos_id = IntOf(field);
        break;
      case 42:
        file.eos_id = IntOf(field);
        break;
      case 45:
        file.unk_piece = field.bytes;
        break;
      case 46:
        file.bos_piece = field.bytes;
        break;
      case 47:
        file.eos_piece = field.bytes;
        break;
      default:
        break;
    }
  });
  KVC_CHECK(model_type >= 1 && model_type <= 4, kBadInput,
            "{}: model_type: expected 1 to 4, got {}", origin, model_type);
  file.model_type = static_cast<ModelType>(model_type);
}

// NormalizerSpec.
void ParseNormalizerSpec(std::string_view bytes,
                         const std::string& origin,
                         SentencePieceFile& file) {
  ForEachField(bytes, origin, [&](const Field& field) {
    if (field.number == 2) file.charsmap = field.bytes;
    if (field.number == 3) file.add_dummy_prefix = field.integer != 0;
    if (field.number == 4) file.remove_extra_whitespaces = field.integer != 0;
    if (field.number == 5) file.escape_whitespaces = field.integer != 0;
  });
}

}  // namespace

SentencePieceFile ParseSentencePiece(std::string_view bytes, const std::string& origin) {
  SentencePieceFile file;
  ForEachField(bytes, origin, [&](const Field& field) {
    if (field.wire_type != 2) return;
    if (field.number == 1) {
      file.pieces.push_back(ParsePiece(field.bytes, file.pieces.size(), origin));
    } else if (field.number == 2) {
      ParseTrainer(field.bytes, origin + ": trainer_spec", file);
    } else if (field.number == 3) {
      ParseNormalizerSpec(field.bytes, origin + ": normalizer_spec", file);
    }
  });
  KVC_CHECK(!file.pieces.empty(), kBadInput,
            "{}: expected a SentencePiece model, got one without pieces", origin);
  return file;
}

}  // namespace kvc::tokenizer
