// The tokenizers of the files that GPT-2 and Qwen2 come with: vocab.json with merges.txt, or
// encoder.json with vocab.bpe.

#include <utility>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/files.h"
#include "core/tokenizer/bpe.h"
#include "core/tokenizer/hf.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxFileBytes = 256 << 20;
constexpr std::string_view kQwen2Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

// Reads one merge "a b" from each line; the first line may be "#version: ...".
MergeList ParseMerges(std::string_view text, const std::string& origin) {
  KVC_CHECK(IsUtf8(text), kBadInput, "{}: expected UTF-8, got other bytes", origin);
  MergeList merges;
  size_t number = 0;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const size_t space = line.find(' ');
    KVC_CHECK(
        space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos,
        kBadInput, "{} line {}: expected two tokens, got \"{}\"", origin, number, line);
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

// The class that reads these files: GPT-2's or Qwen2's, also where only a generic class is named.
TokenizerClass FileClassOf(const TokenizerConfig& config, const std::string& origin) {
  const TokenizerClass named = ClassOf(config);
  if (named != TokenizerClass::kOther) return named;
  const std::string& name = config.tokenizer_class;
  const bool is_generic =
      name.empty() || name == "PreTrainedTokenizer" || name == "TokenizersBackend";
  KVC_CHECK(is_generic, kUnsupported,
            "{}: tokenizer_class: expected GPT2Tokenizer or Qwen2Tokenizer without a "
            "tokenizer.json, got {}; save the tokenizer with transformers, which writes one",
            origin, name);
  return config.model_type.starts_with("qwen3") ? TokenizerClass::kQwen2 : TokenizerClass::kGpt2;
}

}  // namespace

std::unique_ptr<Tokenizer> LoadByteLevelFiles(const std::filesystem::path& vocabulary,
                                              const std::filesystem::path& merges) {
  const std::string origin = vocabulary.string();
  const std::string merges_origin = merges.string();
  TokenizerConfig config = ReadTokenizerConfig(vocabulary.parent_path());
  const TokenizerClass file_class = FileClassOf(config, origin);
  const std::string vocabulary_text = ReadFile(vocabulary, kMaxFileBytes);
  const std::string merges_text = ReadFile(merges, kMaxFileBytes);
  RefuseKnownKind(vocabulary_text, origin, "a vocabulary in JSON");
  RefuseKnownKind(merges_text, merges_origin, "a list of merges");
  TokenList tokens = ParseVocabularyJson(vocabulary_text, origin, {}).vocabulary;
  Pipeline pipeline;
  pipeline.model = std::make_unique<BpeModel>(Vocabulary(std::move(tokens), origin),
                                              ParseMerges(merges_text, merges_origin), BpeOptions{},
                                              merges_origin);
  const bool add_prefix_space = config.add_prefix_space.value_or(false);
  if (file_class == TokenizerClass::kQwen2) {
    pipeline.normalizer = MakeUnicodeForm(NormalForm::kNfc);
    pipeline.pre_tokenizer = MakeByteLevelSplit(kQwen2Expression, add_prefix_space);
  } else {
    pipeline.pre_tokenizer = MakeByteLevel(add_prefix_space, true);
  }
  pipeline.decoder = MakeByteLevelDecoder();
  SetClassDefaults(file_class, config);
  return MakeHfTokenizer(std::move(pipeline), config, origin);
}

}  // namespace kvc::tokenizer
