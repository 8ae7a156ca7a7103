#pragma once
// The functions of the SentencePiece library that kvc uses, in a shared module of its own.
//
// Debian's libsentencepiece carries an old protobuf and exports its symbols. In one program with
// libprotobuf, which LibTorch and ONNX bring, either library then runs the other's code and crashes
// at start. So nothing links it: core/tokenizer/sentencepiece_module.cc is a module that is opened
// with its symbols bound to itself (RTLD_LOCAL | RTLD_DEEPBIND), when a tokenizer.model is first
// read.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvc::tokenizer {

// A loaded tokenizer.model. No exception crosses the border of the module.
class SentencePieceModel {
 public:
  virtual ~SentencePieceModel() = default;
  // Both return false, with the library's message in `error`, when the library fails.
  virtual bool Encode(std::string_view text, std::vector<int>& ids, std::string& error) const = 0;
  virtual bool Decode(const std::vector<int>& ids, std::string& text, std::string& error) const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] virtual int bos_id() const = 0;  // -1: none
  [[nodiscard]] virtual int eos_id() const = 0;
  // Returns the id of <unk> for a text that is no piece.
  [[nodiscard]] virtual int PieceToId(std::string_view piece) const = 0;
  [[nodiscard]] virtual std::string IdToPiece(int id) const = 0;
};

// Opens the module on first use. Throws kBadInput naming `origin` for a broken model, kInternal
// when the module is not where the build put it.
[[nodiscard]] std::unique_ptr<SentencePieceModel> OpenSentencePieceModel(
    const std::string& serialized, const std::string& origin);

// The module's one symbol. It returns null, with the library's message in `error`, for a broken
// model.
inline constexpr const char* kSentencePieceEntry = "kvc_open_sentencepiece";
using SentencePieceEntry = SentencePieceModel* (*)(const std::string& serialized,
                                                   std::string& error);

}  // namespace kvc::tokenizer
