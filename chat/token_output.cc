#include "chat/token_output.h"

#include <utility>

#include "core/io/json.h"

namespace kvc::chat {

TokenOutput::TokenOutput(const Tokenizer& tokenizer,
                         const std::vector<std::string>& stops,
                         size_t texts,
                         TokenFormat format,
                         Sink sink)
    : tokenizer_(tokenizer), format_(format), sink_(std::move(sink)) {
  for (size_t i = 0; i < texts; ++i) {
    texts_.push_back({StoppedStream(tokenizer, stops), {}});
  }
}

bool TokenOutput::Take(size_t i, int32_t id) {
  StoppedStream& stream = texts_[i].stream;
  Tell(i, &id, stream.Push(id));
  return !stream.stopped();
}

void TokenOutput::Finish() {
  for (size_t i = 0; i < texts_.size(); ++i) {
    const std::string piece = texts_[i].stream.Finish();
    if (!piece.empty()) Tell(i, nullptr, piece);
  }
}

std::string TokenOutput::Text(size_t i, std::span<const int32_t> ids) const {
  return texts_[i].stream.stopped() ? texts_[i].text : tokenizer_.Decode(ids);
}

void TokenOutput::Tell(size_t i, const int32_t* id, const std::string& piece) {
  texts_[i].text += piece;
  if (format_ == TokenFormat::kText && !piece.empty()) sink_(piece);
  if (format_ != TokenFormat::kJsonLines) return;
  Json line = {{"prompt", i}};
  if (id != nullptr) line["token_id"] = *id;
  line["text"] = piece;
  sink_(line.dump() + "\n");
}

}  // namespace kvc::chat
