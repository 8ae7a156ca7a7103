// kvc-eval ppl and kld.

#include <cstdio>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/counted.h"
#include "core/base/sizes.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "eval/compare/results_json.h"
#include "eval/compare/same_inputs.h"
#include "eval/compare/walk.h"
#include "tools/eval_arguments.h"
#include "tools/eval_commands.h"
#include "tools/gate_options.h"
#include "tools/number_checks.h"
#include "tools/results_text.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

struct WalkArguments {
  std::string bundle;
  std::string against;  // kld only
  std::vector<std::filesystem::path> text;
  std::string context = "1024";
  std::string decode = "256";
  std::string policy = "reallocate";
  eval::WalkOptions options;
  eval::QualityGates gates;
};

void AddWalkOptions(CLI::App& app, WalkArguments& args) {
  app.add_option("bundle", args.bundle, "Bundle to measure")->required();
  app.add_option("--text", args.text, "UTF-8 text or .jsonl; repeatable")->required();
  app.add_option("--context", args.context, "Tokens prefilled")->capture_default_str();
  app.add_option("--decode", args.decode, "Tokens predicted after them")->capture_default_str();
  app.add_option("--samples", args.options.samples, "Windows, spread over the text")
      ->capture_default_str();
  app.add_option("--batch", args.options.batch, "Samples decoded together")
      ->check(AboveZero())
      ->capture_default_str();
  AddDecodePolicy(app, args.policy);
}

eval::WalkOptions Resolve(const WalkArguments& args) {
  eval::WalkOptions options = args.options;
  options.context = ParseLength(args.context, "--context");
  options.decode = ParseLength(args.decode, "--decode");
  options.policy = ParseDecodePolicy(args.policy);
  return options;
}

// Everything that a walk needs before any bundle is loaded.
struct PreparedWalk {
  eval::WalkOptions options;
  std::vector<std::vector<int32_t>> samples;
};

PreparedWalk PrepareWalk(const WalkArguments& args) {
  PreparedWalk walk;
  walk.options = Resolve(args);
  // The last token is predicted, not fed.
  const int64_t fed = walk.options.context + walk.options.decode - 1;
  eval::CheckFitsContext(args.bundle, "--context and --decode", fed);
  if (!args.against.empty()) eval::CheckFitsContext(args.against, "--context and --decode", fed);
  const auto tokenizer = Tokenizer::Load(args.bundle);
  walk.samples = eval::CutSamples(*tokenizer, eval::ReadAll(args.text), walk.options);
  return walk;
}

Json PlanToJson(const PreparedWalk& walk) {
  return {{"samples", walk.samples.size()},
          {"context", walk.options.context},
          {"decode", walk.options.decode}};
}

CommandResult RunPpl(const WalkArguments& args, const CommonOptions& common) {
  const PreparedWalk walk = PrepareWalk(args);
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  Json json = PlanToJson(walk);
  if (common.dry_run) return {json, {}};
  eval::CheckSameInputs(*common.ranks, {args.bundle}, walk.samples);
  const auto session = eval::OpenSession(args.bundle, SessionOptions(common, pool));
  const eval::Perplexity measured = eval::MeasurePerplexity(
      *session, walk.samples, walk.options, pool, *MakeProgress(common), *common.ranks);
  json["perplexity"] = measured.perplexity;
  eval::AddWalk(measured, json);
  return WithGates(std::move(json), eval::CheckMeasurement(args.gates, measured), [measured] {
    std::printf("perplexity  %.4f (nll %.5f +- %.5f, %s)\n", measured.perplexity, measured.nll,
                measured.stderr_nll, Counted(measured.tokens, "token").c_str());
    PrintCache(measured.cache.Mean());
  });
}

void PrintKld(const eval::Divergence& measured) {
  std::printf("kld         mean %.5f +- %.5f, median %.5f, 99.9 %% %.4f\n", measured.kld_mean,
              measured.kld_stderr, measured.kld_median, measured.kld_p999);
  std::printf("same top    %.2f %% +- %.2f\n", 100.0 * measured.same_top,
              100.0 * measured.same_top_stderr);
  std::printf("perplexity  %.4f against %.4f (%s)\n", measured.model.perplexity,
              measured.reference.perplexity, Counted(measured.model.tokens, "token").c_str());
  PrintCache(measured.model.cache.Mean());
}

CommandResult RunKld(const WalkArguments& args, const CommonOptions& common) {
  const PreparedWalk walk = PrepareWalk(args);
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  Json json = PlanToJson(walk);
  if (common.dry_run) return {json, {}};
  eval::CheckSameInputs(*common.ranks, {args.bundle, args.against}, walk.samples);
  const auto session = eval::OpenSession(args.bundle, SessionOptions(common, pool));
  const auto reference = eval::OpenSession(args.against, SessionOptions(common, pool));
  const eval::Divergence measured = eval::MeasureDivergence(
      *session, *reference, walk.samples, walk.options, pool, *MakeProgress(common), *common.ranks);
  eval::AddDivergence(measured, json);
  json["perplexity_against"] = measured.reference.perplexity;
  eval::AddWalk(measured.model, json);
  json["cache_against"] = eval::CacheToJson(measured.reference.cache.Mean());
  return WithGates(std::move(json), eval::CheckMeasurement(args.gates, measured),
                   [measured] { PrintKld(measured); });
}

}  // namespace

EvalCommand AddPpl(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("ppl", "Perplexity: prefill, compress, decode the rest");
  auto args = std::make_shared<WalkArguments>();
  AddWalkOptions(*sub, *args);
  AddPerplexityGate(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunPpl(*args, common); }};
}

EvalCommand AddKld(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("kld", "KL divergence to a reference bundle, same walk");
  auto args = std::make_shared<WalkArguments>();
  AddWalkOptions(*sub, *args);
  sub->add_option("--against", args->against, "Reference bundle")->required();
  AddPerplexityGate(*sub, args->gates);
  AddDivergenceGates(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunKld(*args, common); }};
}

}  // namespace kvc::tools
