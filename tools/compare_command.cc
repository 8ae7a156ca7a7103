#include "tools/compare_command.h"

#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/needle.h"
#include "eval/compare/requests.h"
#include "eval/compare/walk.h"
#include "pipeline/choose/compare_policies.h"
#include "pipeline/choose/compare_prompts.h"
#include "pipeline/choose/compare_run.h"
#include "tools/eval_arguments.h"
#include "tools/quality_gates.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

struct CompareArguments {
  choose::CompareRequest request;
  std::string output;
  std::string prompts;
  std::vector<std::string> text;
  std::string context = "1024";
  std::string decode = "256";
  std::string policy = "reallocate";
  eval::WalkOptions walk;
  eval::NeedleArguments needle;
  eval::RulerArguments ruler;
  QualityGates gates;
  bool force = false;
};

// Every file and folder that is read.
std::vector<fs::path> InputsOf(const CompareArguments& args) {
  std::vector<fs::path> inputs = {args.request.reference, args.needle.haystack};
  for (const auto* more :
       {&args.request.bundles, &args.request.bases, &args.request.profiles, &args.text}) {
    inputs.insert(inputs.end(), more->begin(), more->end());
  }
  return inputs;
}

choose::CompareTasks MakeTasks(const CompareArguments& args,
                               const Tokenizer& tokenizer,
                               uint64_t seed) {
  KVC_CHECK(!args.text.empty() || !args.needle.haystack.empty(), kUsage,
            "kvc-eval compare: expected --text or --haystack, got neither");
  choose::CompareTasks tasks;
  tasks.walk = args.walk;
  tasks.walk.context = ParseLength(args.context, "--context");
  tasks.walk.decode = ParseLength(args.decode, "--decode");
  tasks.walk.policy = eval::DecodePolicyFromName(args.policy);
  if (!args.text.empty()) {
    tasks.samples = eval::CutSamples(tokenizer, eval::ReadAll(args.text), tasks.walk);
  }
  tasks.needle = eval::ToNeedleOptions(args.needle, tasks.walk.policy, seed);
  if (!args.needle.haystack.empty()) {
    tasks.cells = eval::PlanCells(args.needle, tasks.needle, tokenizer);
  }
  if (args.ruler.samples > 0) {
    KVC_CHECK(!args.needle.haystack.empty(), kUsage, "--ruler: expected --haystack, got none");
    eval::RulerArguments ruler = args.ruler;
    if (ruler.lengths.empty()) ruler.lengths = args.needle.lengths;
    tasks.ruler = eval::PlanRulerPrompts(ruler, args.needle.haystack, seed, tokenizer);
  }
  return tasks;
}

Json RunCompare(const CompareArguments& args, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  const auto tokenizer = Tokenizer::Load(args.request.reference);
  const choose::CompareTasks tasks = MakeTasks(args, *tokenizer, common.seed);
  for (const std::string& output : {args.output, args.prompts}) {
    CheckOutputApart(output, InputsOf(args));
  }
  if (!args.prompts.empty()) {
    WriteJsonFile(args.prompts, choose::PromptsToJson(tasks.walk, tasks.samples, tasks.cells,
                                                      tasks.needle.question_before));
  }
  if (common.dry_run) {
    return {{"samples", tasks.samples.size()},
            {"needles", tasks.prompts()},
            {"ruler_prompts", tasks.ruler.size()},
            {"dry_run", true}};
  }
  const fs::path partial = args.output.empty() ? "" : args.output + ".partial";
  if (args.force && !partial.empty()) fs::remove(partial);
  const auto progress = MakeProgress(common);
  Json result = choose::RunComparison(args.request, tasks, *tokenizer, partial, pool, *progress);
  for (size_t i = 1; i < result["lines"].size(); ++i) {
    const Json line = result["lines"][i];  // a copy: gates are added to the result
    std::optional<double> reference;
    if (line.contains("perplexity")) reference = result["lines"][0]["perplexity"].get<double>();
    const std::string name =
        line["name"].get<std::string>() + " " + line["budget"].get<std::string>();
    ApplyGates(args.gates, line, reference, name, result);
  }
  if (!args.output.empty()) {
    WriteJsonFile(args.output, result);
    fs::remove(partial);
  }
  return result;
}

void PrintLine(const Json& line, const Json& reference, int64_t needles) {
  std::printf("%-44s %-8s", line["name"].get<std::string>().c_str(),
              line["budget"].get<std::string>().c_str());
  if (line.contains("kld_mean")) {
    const double perplexity = line["perplexity"];
    const double against = reference["perplexity"];
    std::printf(" %7.2f %% %8.4f %7.4f %8.4f %7.3f %8.3f (%+6.1f %%) %7.1f %%",
                100.0 * line["prompt_share"].get<double>(), line["kld_mean"].get<double>(),
                line["kld_stderr"].get<double>(), line["kld_median"].get<double>(),
                line["kld_p999"].get<double>(), perplexity, 100.0 * (perplexity / against - 1.0),
                100.0 * line["same_top"].get<double>());
  }
  if (line.contains("needles_found")) {
    std::printf(" %4lld/%lld", line["needles_found"].get<long long>(),
                static_cast<long long>(needles));
  }
  if (line.contains("ruler_score")) {
    std::printf(" %6.1f %%", 100.0 * line["ruler_score"].get<double>());
  }
  std::printf("\n");
}

void PrintCompare(const Json& result) {
  const Json& lines = result["lines"];
  std::printf("%-44s %-8s", "policy", "budget");
  if (lines[0].contains("kld_mean")) {
    std::printf(" %9s %8s %7s %8s %7s %19s %9s", "bytes", "KLD", "+-", "median", "99.9 %",
                "perplexity", "same top");
  }
  if (lines[0].contains("needles_found")) std::printf(" needles");
  if (lines[0].contains("ruler_score")) std::printf("    ruler");
  std::printf("\n");
  for (const Json& line : lines) PrintLine(line, lines[0], result["needles"]);
  for (const Json& line : result["impossible"]) {
    std::printf("%-44s %-8s impossible: %s\n", line["name"].get<std::string>().c_str(),
                line["budget"].get<std::string>().c_str(),
                line["reason"].get<std::string>().c_str());
  }
  PrintGates(result);
}

void AddPolicyOptions(CLI::App& app, choose::CompareRequest& request) {
  app.add_option("reference", request.reference, "Bundle that the others are compared with")
      ->required();
  app.add_option("--bundle", request.bundles, "Bundle as it was exported; repeatable");
  app.add_option(
         "--policy", request.policies,
         "METHOD[/SCORER[/LOSS]][@TIERS] as in kvc-export, no export needed: uniform/snapkv, "
         "lukv@0,1/8,1/4,1, "
         "lukv/output-error:pool=15/output-error; repeatable")
      ->take_all();
  app.add_option("--budget", request.budgets, "Budgets of every policy: 50%,25%")->delimiter(',');
  app.add_option(
      "--base", request.bases,
      "Bundle whose weights policies run on, thin or not; repeatable; default: REFERENCE");
  app.add_option("--profile", request.profiles, "Profile of a base; repeatable");
  app.add_option("--sinks", request.sinks, "First tokens that no policy drops")
      ->capture_default_str();
  app.add_option("--window", request.window, "Newest tokens that no policy drops")
      ->capture_default_str();
}

void AddTaskOptions(CLI::App& app, CompareArguments& args) {
  app.add_option("--text", args.text, "UTF-8 text or .jsonl to walk; repeatable");
  app.add_option("--context", args.context, "Tokens prefilled, at which budgets are met")
      ->capture_default_str();
  app.add_option("--decode", args.decode, "Tokens predicted after them")->capture_default_str();
  app.add_option("--samples", args.walk.samples, "Windows, spread over the text")
      ->capture_default_str();
  app.add_option("--haystack", args.needle.haystack, "UTF-8 text that hides needles");
  app.add_option("--needles", args.needle.options.samples,
                 "Needle prompts for each length and depth")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddNeedleOptions(app, args.needle);
  app.add_option("--ruler", args.ruler.samples, "RULER-style prompts for each task; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--ruler-tasks", args.ruler.tasks, "Tasks as in kvc-eval ruler; default: all")
      ->delimiter(',');
  app.add_option("--ruler-lengths", args.ruler.lengths, "Their lengths; default: --lengths")
      ->delimiter(',');
  AddDecodePolicy(app, args.policy);
  app.add_option("-o,--out,--output", args.output,
                 "JSON file to write; an interrupted run goes on there");
  app.add_option("--save-prompts", args.prompts,
                 "JSON file for the token ids of all windows and needles, with --dry-run too");
  app.add_flag("--force", args.force, "Do not go on with an interrupted run");
}

}  // namespace

EvalCommand AddCompare(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "compare", "Several bundles and policies on the same text and needles, one prefill for all");
  auto args = std::make_shared<CompareArguments>();
  args->needle.lengths = {"1k"};
  args->ruler.samples = 0;
  AddPolicyOptions(*sub, args->request);
  AddTaskOptions(*sub, *args);
  AddPerplexityGate(*sub, args->gates);
  AddDivergenceGates(*sub, args->gates);
  AddNeedleGate(*sub, args->gates);
  AddScoreGate(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunCompare(*args, common); },
          PrintCompare};
}

}  // namespace kvc::tools
