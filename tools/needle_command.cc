// kvc-eval needle.

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/tokenizer/tokenizer.h"
#include "eval/compare/compare.h"
#include "eval/compare/inputs.h"
#include "eval/compare/needle.h"
#include "eval/compare/results_json.h"
#include "eval/compare/same_inputs.h"
#include "tools/eval_arguments.h"
#include "tools/eval_commands.h"
#include "tools/gate_options.h"
#include "tools/number_checks.h"
#include "tools/results_text.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

struct NeedleCommand {
  std::string bundle;
  std::string policy = "reallocate";
  NeedleArguments needle;
  eval::QualityGates gates;
};

void PrintNeedles(const eval::NeedleResult& measured) {
  std::printf("needles     %.1f %% found\n", 100.0 * measured.accuracy);
  std::printf("%8s %6s %9s %8s\n", "length", "depth", "accuracy", "samples");
  for (const eval::NeedleCell& cell : measured.cells) {
    std::printf("%8lld %6.2f %8.1f%% %8lld\n", static_cast<long long>(cell.length), cell.depth,
                100.0 * cell.accuracy, static_cast<long long>(cell.samples));
  }
  PrintCache(measured.cache.Mean());
}

CommandResult RunNeedle(const NeedleCommand& args, const CommonOptions& common) {
  const eval::NeedleOptions options =
      args.needle.Resolve(ParseDecodePolicy(args.policy), common.seed);
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const auto tokenizer = Tokenizer::Load(args.bundle);
  const auto cells =
      eval::PlanNeedles(*tokenizer, eval::ReadHaystack(args.needle.haystack), options);
  for (const eval::NeedleCell& cell : cells) {
    eval::CheckFitsContext(args.bundle, "--lengths with the answers",
                           eval::LongestNeedle(cell.prompts));
  }
  if (common.dry_run) return {{{"cells", cells.size()}, {"samples", options.samples}}, {}};
  std::vector<eval::AskedPrompt> asked;
  for (const eval::NeedleCell& cell : cells) {
    for (const NeedlePrompt& prompt : cell.prompts)
      asked.push_back({prompt.context, prompt.question});
  }
  eval::CheckSameInputs(*common.ranks, args.bundle, asked);
  const auto session = eval::OpenSession(args.bundle, SessionOptions(common, pool));
  const eval::NeedleResult measured = eval::MeasureNeedles(*session, *tokenizer, cells, options,
                                                           *MakeProgress(common), *common.ranks);
  return WithGates({{"question", args.needle.question},
                    {"accuracy", measured.accuracy},
                    {"cells", eval::CellsToJson(measured.cells)},
                    {"cache", eval::CacheToJson(measured.cache.Mean())}},
                   eval::CheckMeasurement(args.gates, measured),
                   [measured] { PrintNeedles(measured); });
}

}  // namespace

EvalCommand AddNeedle(CLI::App& app) {
  CLI::App* sub =
      app.add_subcommand("needle", "Needle in a haystack: accuracy by length and depth");
  auto args = std::make_shared<NeedleCommand>();
  args->needle.lengths = {"512", "1k", "2k"};
  sub->add_option("bundle", args->bundle, "Bundle to measure")->required();
  sub->add_option("--haystack", args->needle.haystack, "UTF-8 text that hides the needles")
      ->required();
  sub->add_option("--samples", args->needle.options.samples, "Prompts for each cell")
      ->check(AboveZero())
      ->capture_default_str();
  AddNeedleOptions(*sub, args->needle);
  AddNeedleGate(*sub, args->gates);
  AddDecodePolicy(*sub, args->policy);
  return {sub, [args](const CommonOptions& common) { return RunNeedle(*args, common); }};
}

}  // namespace kvc::tools
