// The tokenizer of a tokenizer.model: its pieces and settings become a pipeline as transformers
// makes one (SpmConverter.build_tokenizer_from_spm_proto, and LlamaTokenizer for models that name
// it).

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/files.h"
#include "core/tokenizer/bpe.h"
#include "core/tokenizer/hf.h"
#include "core/tokenizer/sentencepiece_file.h"
#include "core/tokenizer/unicode.h"
#include "core/tokenizer/unigram.h"

namespace kvc::tokenizer {
namespace {

using PieceType = SentencePieceFile::PieceType;
using ModelType = SentencePieceFile::ModelType;

constexpr int64_t kMaxFileBytes = 256 << 20;
constexpr const char* kMetaspace = "\u2581";
// A piece is cut at each of its characters to find its merges; SentencePiece's own limit is 16.
constexpr size_t kMaxMergedBytes = 4096;

// Calls found(left, right) for every cut of `text` between two characters, from the left.
template <class Found>
void ForEachCut(std::string_view text, const Found& found) {
  if (text.size() > kMaxMergedBytes) return;
  for (size_t at = CharacterBytes(text[0]); at < text.size(); at += CharacterBytes(text[at])) {
    found(text.substr(0, at), text.substr(at));
  }
}

// What a merge is ordered by, and its parts.
using RankedMerge = std::tuple<double, size_t, std::string, std::string>;

MergeList InOrder(std::vector<RankedMerge> ranked) {
  std::ranges::sort(ranked);
  MergeList merges;
  merges.reserve(ranked.size());
  for (auto& [key, id, left, right] : ranked)
    merges.emplace_back(std::move(left), std::move(right));
  return merges;
}

// The merges of normal pieces: by the score of what they make, the highest first, then by its id,
// then by their parts in the order of code points.
MergeList MergesByScore(const SentencePieceFile& file) {
  std::set<std::string_view> normal;
  for (const auto& piece : file.pieces) {
    if (piece.type == PieceType::kNormal) normal.insert(piece.text);
  }
  std::vector<RankedMerge> ranked;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const auto& piece = file.pieces[id];
    if (piece.type != PieceType::kNormal) continue;
    ForEachCut(piece.text, [&](std::string_view left, std::string_view right) {
      if (normal.contains(left) && normal.contains(right)) {
        ranked.emplace_back(-double{piece.score}, id, left, right);
      }
    });
  }
  return InOrder(std::move(ranked));
}

// LlamaTokenizer's: all pieces count, by the id of what a merge makes, then by the length of its
// left part.
MergeList MergesById(const SentencePieceFile& file) {
  std::set<std::string_view> all;
  for (const auto& piece : file.pieces) all.insert(piece.text);
  MergeList merges;
  for (const auto& piece : file.pieces) {
    ForEachCut(piece.text, [&](std::string_view left, std::string_view right) {
      if (all.contains(left) && all.contains(right)) merges.emplace_back(left, right);
    });
  }
  return merges;
}

TokenList TokensOf(const SentencePieceFile& file) {
  TokenList tokens;
  tokens.reserve(file.pieces.size());
  for (const auto& piece : file.pieces) {
    tokens.emplace_back(piece.text, static_cast<int64_t>(tokens.size()));
  }
  return tokens;
}

std::vector<std::string> UserDefinedOf(const SentencePieceFile& file) {
  std::vector<std::string> texts;
  for (const auto& piece : file.pieces) {
    if (piece.type == PieceType::kUserDefined) texts.push_back(piece.text);
  }
  return texts;
}

std::unique_ptr<Model> MakeModel(const SentencePieceFile& file, const std::string& origin) {
  if (file.model_type == ModelType::kUnigram) {
    ScoredTokens tokens;
    tokens.reserve(file.pieces.size());
    for (const auto& piece : file.pieces) tokens.emplace_back(piece.text, piece.score);
    return std::make_unique<UnigramModel>(std::move(tokens),
                                          UnigramOptions{file.unk_id, file.byte_fallback}, origin);
  }
  BpeOptions options;
  options.unk_token = file.unk_piece;
  options.fuse_unk = true;
  options.byte_fallback = file.byte_fallback;
  options.ignore_merges = !UserDefinedOf(file).empty();
  return std::make_unique<BpeModel>(Vocabulary(TokensOf(file), origin), MergesByScore(file),
                                    std::move(options), origin);
}

// The steps before the cut, in SentencePiece's order.
std::unique_ptr<Normalizer> MakeNormalizer(const SentencePieceFile& file,
                                           bool legacy,
                                           const std::string& origin) {
  std::vector<std::unique_ptr<Normalizer>> steps;
  const auto replace = [&](const char* expression, const char* content) {
    steps.push_back(MakeReplace(Regex(expression, origin), content));
  };
  if (!file.charsmap.empty()) {
    steps.push_back(MakePrecompiled(file.charsmap, origin + ": precompiled_charsmap"));
  }
  if (file.remove_extra_whitespaces) {
    replace(R"(\A +| +\z)", "");
    replace(" {2,}", " ");
  }
  if (file.escape_whitespaces) replace(" ", kMetaspace);
  if (file.add_dummy_prefix && legacy) replace("\\A\u2581", "\u2581\u2581");
  return MakeChain(std::move(steps));
}

// An expression that matches one of the texts, the longest first.
Regex AnyOf(std::vector<std::string> texts, const std::string& origin) {
  std::ranges::stable_sort(texts, [](const std::string& a, const std::string& b) {
    return CountCharacters(a) > CountCharacters(b);
  });
  std::string expression;
  for (const std::string& text : texts) {
    if (!expression.empty()) expression += '|';
    for (const char c : text) {
      const bool plain = static_cast<uint8_t>(c) >= 0x80 || (c >= '0' && c <= '9') ||
                         (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      if (!plain) expression += '\\';
      expression += c;
    }
  }
  return Regex(expression, origin);
}

std::unique_ptr<PreTokenizer> MakePreTokenizer(const SentencePieceFile& file,
                                               bool legacy,
                                               const std::string& origin) {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  if (file.add_dummy_prefix) {
    steps.push_back(MakeMetaspace(legacy ? PrependScheme::kAlways : PrependScheme::kFirst));
  }
  std::vector<std::string> user_defined = UserDefinedOf(file);
  if (!user_defined.empty()) {
    steps.push_back(MakeIsolatingSplit(AnyOf(std::move(user_defined), origin)));
  }
  return MakeChain(std::move(steps));
}

// Gives pieces the texts that added_tokens_decoder has for their ids ("<reserved_7>" ->
// "<|user|>"), but for a text that another piece keeps.
void RenamePieces(const TokenizerConfig& config, SentencePieceFile& file) {
  std::map<int64_t, std::string> names;
  for (const AddedToken& token : config.added_tokens) names[token.id] = token.content;
  std::set<std::string> kept;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    if (!names.contains(static_cast<int64_t>(id))) kept.insert(file.pieces[id].text);
  }
  for (const auto& [id, name] : names) {
    const bool is_piece = id < static_cast<int64_t>(file.pieces.size());
    if (is_piece && !name.empty() && !kept.contains(name)) {
      file.pieces[static_cast<size_t>(id)].text = name;
    }
  }
}

// Control pieces are special tokens, by the texts that they have in the file; user-defined ones
// count as added tokens in LlamaTokenizer only, elsewhere the pre-tokenizer isolates them.
void AddPieceTokens(const SentencePieceFile& file,
                    bool with_user_defined,
                    TokenizerConfig& config) {
  for (const auto& piece : file.pieces) {
    const bool control = piece.type == PieceType::kControl;
    if (!control && !(with_user_defined && piece.type == PieceType::kUserDefined)) continue;
    AddedToken token;
    token.content = piece.text;
    token.special = control;
    config.extra_tokens.push_back(std::move(token));
  }
}

Pipeline MakeLlamaPipeline(const SentencePieceFile& file,
                           TokenizerConfig& config,
                           const std::string& origin) {
  AddPieceTokens(file, true, config);
  BpeOptions options;
  options.fuse_unk = true;
  options.byte_fallback = true;
  Pipeline pipeline;
  pipeline.model = std::make_unique<BpeModel>(Vocabulary(TokensOf(file), origin), MergesById(file),
                                              std::move(options), origin);
  const bool prefix = config.add_prefix_space.value_or(true);
  const PrependScheme scheme =
      config.legacy.value_or(false) ? PrependScheme::kAlways : PrependScheme::kFirst;
  pipeline.pre_tokenizer = MakeMetaspace(prefix ? scheme : PrependScheme::kNever);
  pipeline.decoder = MakeSentencePieceDecoder(true, prefix);
  return pipeline;
}

Pipeline MakePipeline(SentencePieceFile& file, TokenizerConfig& config, const std::string& origin) {
  KVC_CHECK(file.model_type == ModelType::kUnigram || file.model_type == ModelType::kBpe,
            kUnsupported, "{}: model_type: expected unigram or BPE, got {}", origin,
            file.model_type == ModelType::kWords ? "words" : "characters");
  AddPieceTokens(file, false, config);
  if (file.model_type == ModelType::kBpe) RenamePieces(config, file);
  if (file.add_dummy_prefix) {
    // Found in the raw text, so that each part between them gets its own dummy prefix.
    for (AddedToken& token : config.added_tokens) token.normalized = false;
  }
  const bool legacy = config.legacy.value_or(true);
  Pipeline pipeline;
  pipeline.model = MakeModel(file, origin);
  pipeline.normalizer = MakeNormalizer(file, legacy, origin);
  pipeline.pre_tokenizer = MakePreTokenizer(file, legacy, origin);
  pipeline.decoder = MakeSentencePieceDecoder(file.byte_fallback, file.add_dummy_prefix);
  return pipeline;
}

bool IsTiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, bytes.find('\n'));
  const size_t space = line.find(' ');
  return space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
         line.find_first_not_of("0123456789", space + 1) == std::string_view::npos;
}

}  // namespace

std::unique_ptr<Tokenizer> LoadSentencePiece(const std::filesystem::path& file) {
  const std::string origin = file.string();
  const std::string bytes = ReadFile(file, kMaxFileBytes);
  RefuseKnownKind(bytes, origin, "a SentencePiece model");
  KVC_CHECK(!IsTiktoken(bytes), kUnsupported,
            "{}: expected a SentencePiece model, got a file of tiktoken; put the model's "
            "tokenizer.json beside it",
            origin);
  SentencePieceFile parsed = ParseSentencePiece(bytes, origin);
  TokenizerConfig config = ReadTokenizerConfig(file.parent_path());
  // transformers takes another class than LlamaTokenizer for Mistral, whatever the file says.
  const bool is_llama =
      config.tokenizer_class == "LlamaTokenizer" && config.model_type != "mistral";
  const auto set_default = [&](const char* key, int64_t id, const std::string& piece) {
    if (id >= 0) config.SetDefault(key, piece);
  };
  set_default("bos_token", parsed.bos_id, parsed.bos_piece);
  set_default("eos_token", parsed.eos_id, parsed.eos_piece);
  set_default("unk_token", parsed.unk_id, parsed.unk_piece);
  return MakeHfTokenizer(
      is_llama ? MakeLlamaPipeline(parsed, config, origin) : MakePipeline(parsed, config, origin),
      config, origin);
}

}  // namespace kvc::tokenizer
