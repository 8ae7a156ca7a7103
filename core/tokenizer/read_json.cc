// Reads tokenizer.json and builds the pipeline of the components that it names.

#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/hf.h"

namespace kvc::tokenizer {
namespace {

constexpr int64_t kMaxFileBytes = 256 << 20;

// The value under `key`; null when it is absent.
const Json& Component(const Json& json, const char* key) {
  static const Json kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

// Parses a merge: "a b", as files from before tokenizers 0.20 have it, or ["a", "b"].
std::pair<std::string, std::string> ParseMerge(const Json& json, const std::string& origin) {
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    KVC_CHECK(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
              kBadInput, "{}: expected two tokens with a space between, got \"{}\"", origin, text);
    return {text.substr(0, space), text.substr(space + 1)};
  }
  KVC_CHECK(json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string(),
            kBadInput, "{}: expected \"a b\" or [\"a\", \"b\"], got something else", origin);
  return {json[0].get<std::string>(), json[1].get<std::string>()};
}

std::unique_ptr<BpeModel> ParseModel(const Json& json,
                                     TokenList vocabulary,
                                     const std::string& origin) {
  // Files from before tokenizers 0.10 do not name the type of a BPE model.
  const bool untyped = json.contains("merges") && !json.contains("type");
  const std::string type = untyped ? "BPE" : GetString(json, "type", origin);
  KVC_CHECK(type == "BPE", kUnsupported,
            "{} \"{}\" is not supported; kvc reads BPE, or Unigram as tokenizer.model", origin,
            type);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const std::string affix = GetString(json, key, origin, "");
    KVC_CHECK(affix.empty(), kUnsupported, "{}: {} \"{}\" is not supported", origin, key, affix);
  }
  KVC_CHECK(GetDouble(json, "dropout", origin, 0.0) == 0.0, kUnsupported,
            "{}: dropout other than 0 is not supported", origin);
  MergeList merges;
  const Json& list = GetArray(json, "merges", origin);
  merges.reserve(list.size());
  for (const Json& merge : list) merges.push_back(ParseMerge(merge, origin + ": merges"));
  BpeOptions options;
  options.unk_token = GetString(json, "unk_token", origin, "");
  options.fuse_unk = GetBool(json, "fuse_unk", origin, false);
  options.byte_fallback = GetBool(json, "byte_fallback", origin, false);
  options.ignore_merges = GetBool(json, "ignore_merges", origin, false);
  return std::make_unique<BpeModel>(Vocabulary(std::move(vocabulary), origin), merges,
                                    std::move(options), origin);
}

void ParseTemplate(const Json& json, const std::string& origin, Pipeline& pipeline) {
  const Json& tokens = GetObject(json, "special_tokens", origin);
  bool after_text = false;
  for (const Json& item : GetArray(json, "single", origin)) {
    if (item.contains("Sequence")) {
      KVC_CHECK(!after_text, kUnsupported, "{}: a template with the text twice is not supported",
                origin);
      after_text = true;
      continue;
    }
    const std::string name = GetString(GetObject(item, "SpecialToken", origin), "id", origin);
    const Json& token = GetObject(tokens, name.c_str(), origin);
    for (const Json& id : GetArray(token, "ids", origin)) {
      KVC_CHECK(id.is_number_integer() && id >= 0 && id <= std::numeric_limits<int32_t>::max(),
                kBadInput, "{}: ids of \"{}\": expected token ids, got others", origin, name);
      (after_text ? pipeline.suffix : pipeline.prefix).push_back(id.get<int32_t>());
    }
  }
  KVC_CHECK(after_text, kUnsupported, "{}: a template without the text is not supported", origin);
}

void ParsePostProcessor(const Json& json, const std::string& origin, Pipeline& pipeline) {
  ForEachComponent(json, "processors", origin, [&](const Json& step, const std::string& type) {
    if (type == "ByteLevel") return;  // changes offsets only, which kvc does not report
    KVC_CHECK(type == "TemplateProcessing", kUnsupported,
              "{}: post-processor \"{}\" is not supported", origin, type);
    KVC_CHECK(pipeline.prefix.empty() && pipeline.suffix.empty(), kUnsupported,
              "{}: more than one TemplateProcessing is not supported", origin);
    ParseTemplate(step, origin, pipeline);
  });
}

}  // namespace

std::unique_ptr<Tokenizer> LoadTokenizerJson(const std::filesystem::path& file) {
  const std::string origin = file.string();
  VocabularyJson parsed =
      ParseVocabularyJson(ReadFile(file, kMaxFileBytes), origin, {"model", "vocab"});
  const Json& json = parsed.rest;
  Pipeline pipeline;
  pipeline.model = ParseModel(GetObject(json, "model", origin), std::move(parsed.vocabulary),
                              origin + ": model");
  pipeline.normalizer = ParseNormalizer(Component(json, "normalizer"), origin + ": normalizer");
  pipeline.pre_tokenizer =
      ParsePreTokenizer(Component(json, "pre_tokenizer"), origin + ": pre_tokenizer");
  pipeline.decoder = ParseDecoder(Component(json, "decoder"), origin + ": decoder");
  ParsePostProcessor(Component(json, "post_processor"), origin + ": post_processor", pipeline);
  const std::string where = origin + ": added_tokens";
  if (!Component(json, "added_tokens").is_null()) {
    for (const Json& token : GetArray(json, "added_tokens", origin)) {
      pipeline.added_tokens.push_back(ParseAddedToken(token, GetInt(token, "id", where), where));
    }
  }
  return MakeHfTokenizer(std::move(pipeline), ReadTokenizerConfig(file.parent_path()), origin);
}

}  // namespace kvc::tokenizer
