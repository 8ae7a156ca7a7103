#pragma once
// The pipeline of Hugging Face `tokenizers`: added tokens -> normalizer -> pre-tokenizer ->
// model -> tokens of the post-processor, and the decoder for the way back.

#include <memory>
#include <string>
#include <vector>

#include "core/tokenizer/added.h"
#include "core/tokenizer/config.h"
#include "core/tokenizer/decode.h"
#include "core/tokenizer/model.h"
#include "core/tokenizer/normalize.h"
#include "core/tokenizer/pretok.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc::tokenizer {

struct Pipeline {
  std::unique_ptr<Normalizer> normalizer;       // nullptr: the text as it is
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // nullptr: one piece
  std::unique_ptr<Model> model;
  std::unique_ptr<Decoder> decoder;  // nullptr: tokens joined by spaces
  std::vector<AddedToken> added_tokens;
  std::vector<int32_t> prefix;  // what SpecialTokens::kAdd puts before the text
  std::vector<int32_t> suffix;  // ... and after it
};

// Makes the tokenizer of a pipeline, with the tokens that the configuration adds
// (core/tokenizer/special_tokens.h). Where `pipeline` has neither prefix nor suffix, add_bos_token
// and add_eos_token of the configuration count. Throws kBadInput, naming the file `origin`, when an
// added token of the pipeline contradicts the vocabulary or another added token, and when prefix or
// suffix name no token.
[[nodiscard]] std::unique_ptr<Tokenizer> MakeHfTokenizer(Pipeline pipeline,
                                                         const TokenizerConfig& config,
                                                         const std::string& origin);

// The loaders between which Tokenizer::Load chooses: tokenizer.json; vocab.json with merges.txt (or
// encoder.json with vocab.bpe); tokenizer.model.
[[nodiscard]] std::unique_ptr<Tokenizer> LoadTokenizerJson(const std::filesystem::path& file);
[[nodiscard]] std::unique_ptr<Tokenizer> LoadByteLevelFiles(const std::filesystem::path& vocabulary,
                                                            const std::filesystem::path& merges);
[[nodiscard]] std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file);

}  // namespace kvc::tokenizer
