#include "tools/eval_commands.h"

#include <cstdio>
#include <sstream>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/needle.h"
#include "eval/compare/requests.h"
#include "eval/compare/walk.h"
#include "runtime/session.h"
#include "tools/compare_command.h"
#include "tools/eval_arguments.h"
#include "tools/quality_gates.h"
#include "tools/task_commands.h"

namespace kvc::tools {
namespace {

// ---- ppl and kld

struct WalkArguments {
  std::string bundle;
  std::string against;  // kld only
  std::vector<std::string> text;
  std::string context = "1024";
  std::string decode = "256";
  std::string policy = "reallocate";
  eval::WalkOptions options;
  QualityGates gates;
};

void AddWalkOptions(CLI::App& app, WalkArguments& args) {
  app.add_option("bundle", args.bundle, "Bundle to measure")->required();
  app.add_option("--text", args.text, "UTF-8 text or .jsonl; repeatable")->required();
  app.add_option("--context", args.context, "Tokens prefilled")->capture_default_str();
  app.add_option("--decode", args.decode, "Tokens predicted after them")->capture_default_str();
  app.add_option("--samples", args.options.samples, "Windows, spread over the text")
      ->capture_default_str();
  app.add_option("--batch", args.options.batch, "Samples decoded together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddDecodePolicy(app, args.policy);
}

eval::WalkOptions Resolve(const WalkArguments& args) {
  eval::WalkOptions options = args.options;
  options.context = ParseLength(args.context, "--context");
  options.decode = ParseLength(args.decode, "--decode");
  options.policy = eval::DecodePolicyFromName(args.policy);
  return options;
}

Json WalkPlan(const eval::WalkOptions& options, size_t samples) {
  return {{"samples", samples}, {"context", options.context}, {"decode", options.decode}};
}

// What a walk needs before any bundle is loaded.
struct PreparedWalk {
  eval::WalkOptions options;
  std::vector<std::vector<int32_t>> samples;
};

PreparedWalk PrepareWalk(const WalkArguments& args) {
  PreparedWalk walk;
  walk.options = Resolve(args);
  const auto tokenizer = Tokenizer::Load(args.bundle);
  walk.samples = eval::CutSamples(*tokenizer, eval::ReadAll(args.text), walk.options);
  return walk;
}

Json RunPpl(const WalkArguments& args, const CommonOptions& common) {
  const auto [options, samples] = PrepareWalk(args);
  ThreadPool pool(CheckCommonOptions(common));
  Json result = WalkPlan(options, samples.size());
  if (common.dry_run) return result;
  const eval::LoadedBundle loaded = eval::LoadBundle(args.bundle, pool);
  const auto progress = MakeProgress(common);
  const auto measured = eval::MeasurePerplexity(*loaded.session, samples, options, pool, *progress);
  result["perplexity"] = measured.perplexity;
  result["nll"] = measured.nll;
  result["stderr"] = measured.stderr_nll;
  result["tokens"] = measured.tokens;
  result["cache"] = measured.cache.ToJson();
  ApplyGates(args.gates, result, {}, "", result);
  return result;
}

Json RunKld(const WalkArguments& args, const CommonOptions& common) {
  const auto [options, samples] = PrepareWalk(args);
  ThreadPool pool(CheckCommonOptions(common));
  Json result = WalkPlan(options, samples.size());
  if (common.dry_run) return result;
  const eval::LoadedBundle loaded = eval::LoadBundle(args.bundle, pool);
  const eval::LoadedBundle reference = eval::LoadBundle(args.against, pool);
  const auto progress = MakeProgress(common);
  const auto measured = eval::MeasureDivergence(*loaded.session, *reference.session, samples,
                                                options, pool, *progress);
  eval::AddDivergence(measured, result);
  result["perplexity_against"] = measured.reference.perplexity;
  result["nll"] = measured.model.nll;
  result["stderr"] = measured.model.stderr_nll;
  result["tokens"] = measured.model.tokens;
  result["cache"] = measured.model.cache.ToJson();
  result["cache_against"] = measured.reference.cache.ToJson();
  ApplyGates(args.gates, result, {}, "", result);
  return result;
}

EvalCommand AddPpl(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("ppl", "Perplexity: prefill, compress, decode the rest");
  auto args = std::make_shared<WalkArguments>();
  AddWalkOptions(*sub, *args);
  AddPerplexityGate(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunPpl(*args, common); },
          [](const Json& r) {
            std::printf("perplexity  %.4f (nll %.5f +- %.5f, %lld tokens)\n",
                        r["perplexity"].get<double>(), r["nll"].get<double>(),
                        r["stderr"].get<double>(), r["tokens"].get<long long>());
            PrintCache(r["cache"]);
            PrintGates(r);
          }};
}

EvalCommand AddKld(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("kld", "KL divergence to a reference bundle, same walk");
  auto args = std::make_shared<WalkArguments>();
  AddWalkOptions(*sub, *args);
  sub->add_option("--against", args->against, "Reference bundle")->required();
  AddPerplexityGate(*sub, args->gates);
  AddDivergenceGates(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunKld(*args, common); },
          [](const Json& r) {
            std::printf("kld         mean %.5f +- %.5f, median %.5f, 99.9 %% %.4f\n",
                        r["kld_mean"].get<double>(), r["kld_stderr"].get<double>(),
                        r["kld_median"].get<double>(), r["kld_p999"].get<double>());
            std::printf("same top    %.2f %% +- %.2f\n", 100.0 * r["same_top"].get<double>(),
                        100.0 * r["same_top_stderr"].get<double>());
            std::printf("perplexity  %.4f against %.4f (%lld tokens)\n",
                        r["perplexity"].get<double>(), r["perplexity_against"].get<double>(),
                        r["tokens"].get<long long>());
            PrintCache(r["cache"]);
            PrintGates(r);
          }};
}

// ---- needle

struct NeedleCommand {
  std::string bundle;
  std::string policy = "reallocate";
  eval::NeedleArguments needle;
  QualityGates gates;
};

Json RunNeedle(const NeedleCommand& args, const CommonOptions& common) {
  const eval::NeedleOptions options =
      eval::ToNeedleOptions(args.needle, eval::DecodePolicyFromName(args.policy), common.seed);
  ThreadPool pool(CheckCommonOptions(common));
  const auto tokenizer = Tokenizer::Load(args.bundle);
  const auto cells = eval::PlanCells(args.needle, options, *tokenizer);
  if (common.dry_run) return {{"cells", cells.size()}, {"samples", options.samples}};
  const eval::LoadedBundle loaded = eval::LoadBundle(args.bundle, pool);
  const auto progress = MakeProgress(common);
  const auto measured =
      eval::MeasureNeedles(*loaded.session, *tokenizer, cells, options, *progress);
  Json result;
  result["question"] = args.needle.question;
  result["accuracy"] = measured.accuracy;
  result["cells"] = Json::array();
  for (const auto& cell : measured.cells) result["cells"].push_back(eval::CellToJson(cell));
  result["cache"] = measured.cache.ToJson();
  ApplyGates(args.gates, result, {}, "", result);
  return result;
}

EvalCommand AddNeedle(CLI::App& app) {
  CLI::App* sub =
      app.add_subcommand("needle", "Needle in a haystack: accuracy by length and depth");
  auto args = std::make_shared<NeedleCommand>();
  args->needle.lengths = {"512", "1k", "2k"};
  sub->add_option("bundle", args->bundle, "Bundle to measure")->required();
  sub->add_option("--haystack", args->needle.haystack, "UTF-8 text that hides the needles")
      ->required();
  sub->add_option("--samples", args->needle.options.samples, "Prompts for each cell")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddNeedleOptions(*sub, args->needle);
  AddNeedleGate(*sub, args->gates);
  AddDecodePolicy(*sub, args->policy);
  return {sub, [args](const CommonOptions& common) { return RunNeedle(*args, common); },
          [](const Json& r) {
            std::printf("needles     %.1f %% found\n", 100.0 * r["accuracy"].get<double>());
            std::printf("%8s %6s %9s %8s\n", "length", "depth", "accuracy", "samples");
            for (const Json& cell : r["cells"]) {
              std::printf("%8lld %6.2f %8.1f%% %8lld\n", cell["length"].get<long long>(),
                          cell["depth"].get<double>(), 100.0 * cell["accuracy"].get<double>(),
                          cell["samples"].get<long long>());
            }
            PrintCache(r["cache"]);
            PrintGates(r);
          }};
}

// ---- logits and tokenize

struct LogitsArguments {
  std::string bundle;
  std::string ids;
  std::string out;
};

// One prompt of token ids for each line.
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
std::filesystem::path NpyName(const std::filesystem::path& out, size_t index) {
  if (index == 0) return out;
  std::filesystem::path name = out;
  name.replace_extension(std::to_string(index) + out.extension().string());
  return name;
}

Json RunLogits(const LogitsArguments& args, const CommonOptions& common) {
  const auto prompts = ReadIdLines(args.ids);
  Json result;
  result["outputs"] = Json::array();
  for (size_t p = 0; p < prompts.size(); ++p) {
    CheckOutputApart(NpyName(args.out, p), {args.bundle, args.ids});
  }
  if (common.dry_run) return result;
  ThreadPool pool(CheckCommonOptions(common));
  const eval::LoadedBundle loaded = eval::LoadBundle(args.bundle, pool);
  const int64_t vocabulary = loaded.bundle->manifest().model.vocab_size;
  runtime::SequenceOptions options;
  options.cache = FullCache(loaded.bundle->manifest().cache);
  for (size_t p = 0; p < prompts.size(); ++p) {
    const auto tokens = static_cast<int64_t>(prompts[p].size());
    std::vector<float> logits(tokens * vocabulary);  // [T, V]
    const auto sequence = loaded.session->NewSequence(options);
    loaded.session->Prefill(*sequence, prompts[p], MatrixF(logits.data(), tokens, vocabulary));
    const auto name = NpyName(args.out, p);
    WriteNpy(name, logits, {tokens, vocabulary});
    result["outputs"].push_back({{"file", name.string()}, {"tokens", tokens}});
  }
  result["vocabulary"] = vocabulary;
  return result;
}

EvalCommand AddLogits(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("logits", "Logits of token ids as .npy; full cache");
  auto args = std::make_shared<LogitsArguments>();
  sub->add_option("bundle", args->bundle, "Bundle to run")->required();
  sub->add_option("--ids", args->ids, "One prompt of token ids per line")->required();
  sub->add_option("-o,--out", args->out, "OUT.npy; OUT.1.npy for the second line, ...")->required();
  return {sub, [args](const CommonOptions& common) { return RunLogits(*args, common); },
          [](const Json& r) {
            for (const Json& output : r["outputs"]) {
              std::printf("%s [%lld, %lld]\n", output["file"].get<std::string>().c_str(),
                          output["tokens"].get<long long>(), r["vocabulary"].get<long long>());
            }
          }};
}

struct TokenizeArguments {
  std::string model;
  std::string text;
};

EvalCommand AddTokenize(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("tokenize", "Token ids of a text on one line");
  auto args = std::make_shared<TokenizeArguments>();
  sub->add_option("model", args->model, "Model or bundle with a tokenizer")->required();
  sub->add_option("--text", args->text, "UTF-8 text file")->required();
  return {sub,
          [args](const CommonOptions&) -> Json {
            const auto tokenizer = Tokenizer::Load(args->model);
            std::vector<int32_t> ids;
            for (const std::string& document : ReadDocuments(args->text)) {
              const auto more = tokenizer->Encode(document, SpecialTokens::kNone);
              ids.insert(ids.end(), more.begin(), more.end());
            }
            return {{"tokens", ids.size()}, {"token_ids", ids}};
          },
          [](const Json& r) {
            std::string line;
            for (const Json& id : r["token_ids"]) {
              line += (line.empty() ? "" : " ") + std::to_string(id.get<int64_t>());
            }
            std::printf("%s\n", line.c_str());
          }};
}

}  // namespace

std::vector<EvalCommand> AddEvalCommands(CLI::App& app) {
  return {AddPpl(app),       AddKld(app),     AddNeedle(app), AddRuler(app),   AddLines(app),
          AddLongBench(app), AddCompare(app), AddLogits(app), AddTokenize(app)};
}

}  // namespace kvc::tools
