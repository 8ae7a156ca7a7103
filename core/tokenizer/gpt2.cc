// The tokenizer of GPT-2's own files: vocab.json with merges.txt, or encoder.json with vocab.bpe.

#include <utility>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/tokenizer/hf.h"
#include "core/tokenizer/unicode.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxFileBytes = 256 << 20;
constexpr const char* kEndOfText = "<|endoftext|>";

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

// Refuses other classes: these files do not say how the text is split, and only GPT-2's way is
// known to go with them.
void CheckClass(const std::string& name, const std::string& origin) {
  const bool is_gpt2 =
      name.empty() || name.starts_with("GPT2Tokenizer") || name == "PreTrainedTokenizerFast";
  KVC_CHECK(is_gpt2, kUnsupported,
            "{}: tokenizer_class \"{}\" is not supported without its tokenizer.json", origin, name);
}

}  // namespace

std::unique_ptr<Tokenizer> LoadGpt2Files(const std::filesystem::path& vocabulary,
                                         const std::filesystem::path& merges) {
  const std::string origin = vocabulary.string();
  TokenizerConfig config = ReadTokenizerConfig(vocabulary.parent_path());
  CheckClass(config.tokenizer_class, origin);
  TokenList tokens =
      ParseVocabularyJson(ReadFile(vocabulary, kMaxFileBytes), origin, {}).vocabulary;
  const std::string merges_origin = merges.string();
  const MergeList merge_list = ParseMerges(ReadFile(merges, kMaxFileBytes), merges_origin);
  Pipeline pipeline;
  pipeline.model = std::make_unique<BpeModel>(Vocabulary(std::move(tokens), origin), merge_list,
                                              BpeOptions{}, merges_origin);
  pipeline.pre_tokenizer = MakeByteLevel(config.add_prefix_space, true);
  pipeline.decoder = MakeByteLevelDecoder();
  pipeline.added_tokens = std::move(config.added_tokens);
  const int32_t end_of_text = pipeline.model->vocabulary().Id(kEndOfText);
  if (end_of_text >= 0) {
    if (pipeline.added_tokens.empty()) {
      AddedToken token;
      token.content = kEndOfText;
      token.id = end_of_text;
      token.special = true;
      pipeline.added_tokens.push_back(std::move(token));
    }
    if (config.bos_token.empty()) config.bos_token = kEndOfText;
    if (config.eos_token.empty()) config.eos_token = kEndOfText;
  }
  return MakeHfTokenizer(std::move(pipeline), config, origin);
}

}  // namespace kvc::tokenizer
