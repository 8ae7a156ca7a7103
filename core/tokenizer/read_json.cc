// Reads tokenizer.json and builds the pipeline of the components that it names.

#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/tokenizer/bpe.h"
#include "core/tokenizer/components.h"
#include "core/tokenizer/hf.h"
#include "core/tokenizer/unigram.h"

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

std::unique_ptr<Model> ParseBpe(const Json& json, TokenList vocabulary, const std::string& origin) {
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

std::unique_ptr<Model> ParseUnigram(const Json& json, const std::string& origin) {
  ScoredTokens tokens;
  const Json& list = GetArray(json, "vocab", origin);
  tokens.reserve(list.size());
  for (const Json& entry : list) {
    KVC_CHECK(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number(),
              kBadInput, "{}: vocab {}: expected [token, score], got something else", origin,
              tokens.size());
    tokens.emplace_back(entry[0].get<std::string>(), entry[1].get<double>());
  }
  UnigramOptions options;
  if (!Component(json, "unk_id").is_null()) options.unk_id = GetInt(json, "unk_id", origin);
  options.byte_fallback = GetBool(json, "byte_fallback", origin, false);
  return std::make_unique<UnigramModel>(std::move(tokens), options, origin);
}

// Files from before tokenizers 0.10 do not name the type of the model.
std::string TypeOfModel(const Json& json, const std::string& origin) {
  if (json.contains("type")) return GetString(json, "type", origin);
  if (json.contains("merges")) return "BPE";
  if (json.contains("vocab") && json.at("vocab").is_array()) return "Unigram";
  return GetString(json, "type", origin);
}

std::unique_ptr<Model> ParseModel(const Json& json,
                                  TokenList vocabulary,
                                  const std::string& origin) {
  const std::string type = TypeOfModel(json, origin);
  if (type == "BPE") return ParseBpe(json, std::move(vocabulary), origin);
  if (type == "Unigram") return ParseUnigram(json, origin);
  KVC_THROW(kUnsupported, "{} \"{}\" is not supported; kvc reads BPE and Unigram", origin, type);
}

// The token before or behind the text, ["<s>", 0] under `key`.
int32_t ParseEndToken(const Json& json, const char* key, const std::string& origin) {
  const Json& pair = GetArray(json, key, origin);
  KVC_CHECK(pair.size() == 2 && pair[1].is_number_integer() && pair[1] >= 0 &&
                pair[1] <= std::numeric_limits<int32_t>::max(),
            kBadInput, "{}: {}: expected a token and its id, got something else", origin, key);
  return pair[1].get<int32_t>();
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
    KVC_CHECK(pipeline.prefix.empty() && pipeline.suffix.empty(), kUnsupported,
              "{}: more than one post-processor that adds tokens is not supported", origin);
    if (type == "RobertaProcessing" || type == "BertProcessing") {
      pipeline.prefix.push_back(ParseEndToken(step, "cls", origin));
      pipeline.suffix.push_back(ParseEndToken(step, "sep", origin));
      return;
    }
    KVC_CHECK(type == "TemplateProcessing", kUnsupported,
              "{}: post-processor \"{}\" is not supported", origin, type);
    ParseTemplate(step, origin, pipeline);
  });
}

// add_prefix_space of tokenizer_config.json, which counts for the classes that build their
// pre-tokenizer by it.
std::optional<bool> PrefixSpaceOf(const TokenizerConfig& config) {
  const std::string& name = config.tokenizer_class;
  const bool counts = name == "GPT2Tokenizer" || name == "Qwen2Tokenizer";
  return counts ? config.add_prefix_space : std::nullopt;
}

}  // namespace

std::unique_ptr<Tokenizer> LoadTokenizerJson(const std::filesystem::path& file) {
  const std::string origin = file.string();
  const std::string text = ReadFile(file, kMaxFileBytes);
  RefuseKnownKind(text, origin, "a tokenizer in JSON");
  VocabularyJson parsed = ParseVocabularyJson(text, origin, {"model", "vocab"});
  const Json& json = parsed.rest;
  TokenizerConfig config = ReadTokenizerConfig(file.parent_path());
  SetClassDefaults(ClassOf(config), config);
  Pipeline pipeline;
  pipeline.model = ParseModel(GetObject(json, "model", origin), std::move(parsed.vocabulary),
                              origin + ": model");
  pipeline.normalizer = ParseNormalizer(Component(json, "normalizer"), origin + ": normalizer");
  pipeline.pre_tokenizer = ParsePreTokenizer(Component(json, "pre_tokenizer"),
                                             origin + ": pre_tokenizer", PrefixSpaceOf(config));
  pipeline.decoder = ParseDecoder(Component(json, "decoder"), origin + ": decoder");
  ParsePostProcessor(Component(json, "post_processor"), origin + ": post_processor", pipeline);
  const std::string where = origin + ": added_tokens";
  if (!Component(json, "added_tokens").is_null()) {
    for (const Json& token : GetArray(json, "added_tokens", origin)) {
      pipeline.added_tokens.push_back(ParseAddedToken(token, GetInt(token, "id", where), where));
    }
  }
  return MakeHfTokenizer(std::move(pipeline), config, origin);
}

}  // namespace kvc::tokenizer
