// The module around libsentencepiece; see core/tokenizer/sentencepiece_model.h.

#include <sentencepiece_processor.h>

#include "core/tokenizer/sentencepiece_model.h"

namespace kvc::tokenizer {
namespace {

class Model final : public SentencePieceModel {
 public:
  sentencepiece::util::Status Load(const std::string& serialized) {
    return processor_.LoadFromSerializedProto(serialized);
  }
  bool Encode(std::string_view text, std::vector<int>& ids, std::string& error) const override {
    return Report(processor_.Encode(text, &ids), error);
  }
  bool Decode(const std::vector<int>& ids, std::string& text, std::string& error) const override {
    return Report(processor_.Decode(ids, &text), error);
  }
  [[nodiscard]] int size() const override { return processor_.GetPieceSize(); }
  [[nodiscard]] int bos_id() const override { return processor_.bos_id(); }
  [[nodiscard]] int eos_id() const override { return processor_.eos_id(); }
  [[nodiscard]] int PieceToId(std::string_view piece) const override {
    return processor_.PieceToId(piece);
  }
  [[nodiscard]] std::string IdToPiece(int id) const override { return processor_.IdToPiece(id); }

 private:
  static bool Report(const sentencepiece::util::Status& status, std::string& error) {
    if (!status.ok()) error = status.ToString();
    return status.ok();
  }

  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace
}  // namespace kvc::tokenizer

extern "C" kvc::tokenizer::SentencePieceModel* kvc_open_sentencepiece(const std::string& serialized,
                                                                      std::string& error) {
  auto model = std::make_unique<kvc::tokenizer::Model>();
  const auto status = model->Load(serialized);
  if (status.ok()) return model.release();
  error = status.ToString();
  return nullptr;
}
