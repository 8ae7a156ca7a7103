// kvc-eval logits and tokenize.

#include <cstdio>
#include <memory>
#include <sstream>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/output_directory.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "runtime/session.h"
#include "tools/eval_commands.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

struct LogitsArguments {
  std::string bundle;
  std::string ids;
  std::string out;
};

// Reads one prompt of token ids from each line.
std::vector<std::vector<int32_t>> ReadIdLines(const std::string& file) {
  std::istringstream text(ReadFile(file));
  std::vector<std::vector<int32_t>> prompts;
  std::string line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::vector<int32_t> ids;
    int32_t id = 0;
    while (words >> id) ids.push_back(id);
    KVC_CHECK(words.eof(), kBadInput, "{}: line {}: expected token ids, got \"{}\"", file,
              prompts.size() + 1, line);
    if (!ids.empty()) prompts.push_back(std::move(ids));
  }
  KVC_CHECK(!prompts.empty(), kBadInput, "{}: expected lines of token ids, got none", file);
  return prompts;
}

// OUT.npy, OUT.1.npy, OUT.2.npy, ...
fs::path NpyName(const fs::path& out, size_t index) {
  if (index == 0) return out;
  fs::path name = out;
  name.replace_extension(std::to_string(index) + out.extension().string());
  return name;
}

// A file of logits [tokens, vocabulary].
struct WrittenLogits {
  std::string file;
  int64_t tokens = 0;
};

CommandResult LogitsResult(const std::vector<WrittenLogits>& written, int64_t vocabulary) {
  CommandResult result;
  result.json["outputs"] = Json::array();
  for (const WrittenLogits& output : written) {
    result.json["outputs"].push_back({{"file", output.file}, {"tokens", output.tokens}});
  }
  result.json["vocabulary"] = vocabulary;
  result.print = [written, vocabulary] {
    for (const WrittenLogits& output : written) {
      std::printf("%s [%lld, %lld]\n", output.file.c_str(), static_cast<long long>(output.tokens),
                  static_cast<long long>(vocabulary));
    }
  };
  return result;
}

CommandResult RunLogits(const LogitsArguments& args, const CommonOptions& common) {
  const auto prompts = ReadIdLines(args.ids);
  for (size_t p = 0; p < prompts.size(); ++p) {
    CheckOutputApart(NpyName(args.out, p), {args.bundle, args.ids});
  }
  if (common.dry_run) return {{{"outputs", Json::array()}}, {}};
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const auto session = eval::OpenSession(args.bundle, SessionOptions(common, pool));
  const Manifest& manifest = session->bundle().manifest();
  const int64_t vocabulary = manifest.model.vocab_size;
  runtime::SequenceOptions options;
  options.cache = FullCache(manifest.cache);
  std::vector<WrittenLogits> written;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const auto tokens = static_cast<int64_t>(prompts[p].size());
    std::vector<float> logits(tokens * vocabulary);  // [T, V]
    const auto sequence = session->NewSequence(options);
    session->Prefill(*sequence, prompts[p], MatrixF(logits.data(), tokens, vocabulary));
    const fs::path name = NpyName(args.out, p);
    WriteNpy(name, logits, {tokens, vocabulary});
    written.push_back({name.string(), tokens});
  }
  return LogitsResult(written, vocabulary);
}

CommandResult RunTokenize(const std::string& model, const std::string& text) {
  const auto tokenizer = Tokenizer::Load(model);
  std::vector<int32_t> ids;
  for (const std::string& document : ReadDocuments(text)) {
    const auto more = tokenizer->Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  CommandResult result{{{"tokens", ids.size()}, {"token_ids", ids}}, {}};
  result.print = [ids] {
    std::string line;
    for (const int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
    std::printf("%s\n", line.c_str());
  };
  return result;
}

struct TokenizeArguments {
  std::string model;
  std::string text;
};

}  // namespace

EvalCommand AddLogits(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("logits", "Logits of token ids as .npy; full cache");
  auto args = std::make_shared<LogitsArguments>();
  sub->add_option("bundle", args->bundle, "Bundle to run")->required();
  sub->add_option("--ids", args->ids, "One prompt of token ids per line")->required();
  sub->add_option("-o,--out", args->out, "OUT.npy; OUT.1.npy for the second line, ...")->required();
  return {sub, [args](const CommonOptions& common) { return RunLogits(*args, common); }};
}

EvalCommand AddTokenize(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("tokenize", "Token ids of a text on one line");
  auto args = std::make_shared<TokenizeArguments>();
  sub->add_option("model", args->model, "Model or bundle with a tokenizer")->required();
  sub->add_option("--text", args->text, "UTF-8 text file")->required();
  return {sub, [args](const CommonOptions&) { return RunTokenize(args->model, args->text); }};
}

}  // namespace kvc::tools
