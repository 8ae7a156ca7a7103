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
    texts_.push_back({TextStream(tokenizer), StopTexts(stops), {}});
  }
}

bool TokenOutput::Take(size_t i, int32_t id) {
  Growing& growing = texts_[i];
  Tell(i, &id, growing.stops.Push(growing.stream.Push(id)));
  return !growing.stops.found();
}

void TokenOutput::Finish() {
  for (size_t i = 0; i < texts_.size(); ++i) {
    Growing& growing = texts_[i];
    if (growing.stops.found()) continue;
    // A stop text may come with the last bytes.
    const std::string rest = growing.stops.Push(growing.stream.Finish());
    const std::string piece = rest + growing.stops.Finish();
    if (!piece.empty()) Tell(i, nullptr, piece);
  }
}

std::string TokenOutput::Text(size_t i, std::span<const int32_t> ids) const {
  return texts_[i].stops.found() ? texts_[i].text : tokenizer_.Decode(ids);
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
