// kvc-eval logits and tokenize.

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/output_directory.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "eval/compare/logits_files.h"
#include "eval/compare/same_inputs.h"
#include "runtime/session.h"
#include "tools/eval_arguments.h"
#include "tools/eval_commands.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

struct LogitsArguments {
  std::string bundle;
  std::string ids;
  std::string out;
  std::string context = "0";
};

CommandResult LogitsResult(const std::vector<eval::WrittenLogits>& written, int64_t vocabulary) {
  CommandResult result;
  result.json["outputs"] = Json::array();
  for (const eval::WrittenLogits& output : written) {
    result.json["outputs"].push_back({{"file", output.file}, {"tokens", output.tokens}});
  }
  result.json["vocabulary"] = vocabulary;
  result.print = [written, vocabulary] {
    for (const eval::WrittenLogits& output : written) {
      std::printf("%s [%lld, %lld]\n", output.file.c_str(), static_cast<long long>(output.tokens),
                  static_cast<long long>(vocabulary));
    }
  };
  return result;
}

CommandResult RunLogits(const LogitsArguments& args, const CommonOptions& common) {
  const int64_t context = args.context == "0" ? 0 : ParseLength(args.context, "--context");
  const auto prompts = eval::ReadIdLines(args.ids);
  for (size_t p = 0; p < prompts.size(); ++p) {
    CheckOutputApart(eval::LogitsFile(args.out, p), {args.bundle, args.ids});
  }
  if (common.dry_run) return {{{"outputs", Json::array()}}, {}};
  eval::CheckSameInputs(*common.ranks, {args.bundle}, prompts);
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  runtime::RuntimeOptions options = SessionOptions(common, pool);
  // People hold these logits against other programs' floats.
  options.exact = options.device == "cpu";
  const auto session = eval::OpenSession(args.bundle, options);
  return LogitsResult(eval::WriteLogits(*session, prompts, args.out, context, *common.ranks),
                      session->bundle().manifest().model.vocab_size);
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
  CLI::App* sub = app.add_subcommand("logits", "Logits of token ids as .npy");
  auto args = std::make_shared<LogitsArguments>();
  sub->add_option("bundle", args->bundle, "Bundle to run")->required();
  sub->add_option("--ids", args->ids, "One prompt of token ids per line")->required();
  sub->add_option("-o,--out", args->out, "OUT.npy; OUT.1.npy for the second line, ...")->required();
  sub->add_option("--context", args->context,
                  "Tokens of a line that are the prompt of the bundle's cache, the others are "
                  "decoded; 0: a full cache, nothing is decoded")
      ->capture_default_str();
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
