#include "core/tokenizer/tokenizer.h"

#include "core/base/error.h"
#include "core/tokenizer/hf.h"

namespace kvc {

std::vector<int32_t> Tokenizer::EncodeParts(std::span<const TextPart> parts) const {
  std::string text;
  for (const TextPart& part : parts) text += part.text;
  return Encode(text, SpecialTokens::kNone);
}

std::unique_ptr<Tokenizer> Tokenizer::Load(const std::filesystem::path& directory) {
  std::error_code missing;
  KVC_CHECK(std::filesystem::is_directory(directory, missing), kIo,
            "{}: expected a directory with a tokenizer, got none", directory.string());
  const auto is_there = [&](const char* name) {
    std::error_code unreadable;  // the loader will say why
    return std::filesystem::is_regular_file(directory / name, unreadable);
  };
  if (is_there("tokenizer.json")) {
    return tokenizer::LoadTokenizerJson(directory / "tokenizer.json");
  }
  if (is_there("tokenizer.model")) {
    return tokenizer::LoadSentencePiece(directory / "tokenizer.model");
  }
  if (is_there("vocab.json") && is_there("merges.txt")) {
    return tokenizer::LoadByteLevelFiles(directory / "vocab.json", directory / "merges.txt");
  }
  if (is_there("encoder.json") && is_there("vocab.bpe")) {
    return tokenizer::LoadByteLevelFiles(directory / "encoder.json", directory / "vocab.bpe");
  }
  KVC_THROW(kBadInput,
            "{}: expected tokenizer.json, tokenizer.model, vocab.json + merges.txt or encoder.json "
            "+ vocab.bpe, got none of them",
            directory.string());
}

}  // namespace kvc
