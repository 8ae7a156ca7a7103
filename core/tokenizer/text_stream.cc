#include "core/tokenizer/text_stream.h"

#include <span>
#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

std::string TextStream::Push(int32_t id) {
  ids_.push_back(id);
  std::string text = tokenizer_->Decode(ids_);
  if (text.ends_with(kReplacement)) return {};
  std::string piece = NewText(text);
  // What follows may depend on the last token that has a text, and on none in front of it.
  if (!piece.empty()) ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(told_));
  told_ = ids_.size();
  return piece;
}

std::string TextStream::Finish() {
  std::string piece = NewText(tokenizer_->Decode(ids_));
  ids_.clear();
  told_ = 0;
  return piece;
}

// A byte that belongs to no character may take those in front of it with it: they have been told,
// and what is held back is then decoded alone.
std::string TextStream::NewText(const std::string& text) const {
  const std::string before = tokenizer_->Decode(std::span(ids_).first(told_));
  return text.starts_with(before) ? text.substr(before.size())
                                  : tokenizer_->Decode(std::span(ids_).subspan(told_));
}

}  // namespace kvc
