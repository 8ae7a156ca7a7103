// kvc-eval compare.

#include <filesystem>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/files.h"
#include "core/io/output_directory.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/compare.h"
#include "eval/compare/inputs.h"
#include "pipeline/choose/comparison.h"
#include "pipeline/choose/comparison_json.h"
#include "pipeline/choose/prompt_file.h"
#include "tools/comparison_text.h"
#include "tools/eval_arguments.h"
#include "tools/eval_commands.h"
#include "tools/gate_options.h"
#include "tools/number_checks.h"
#include "tools/results_text.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

struct CompareArguments {
  choose::CompareRequest request;  // but its bases and budgets
  std::vector<std::string> policies;
  std::vector<std::string> budgets;
  std::vector<fs::path> bases;
  std::string output;
  std::string prompts;
  std::vector<fs::path> text;
  std::string context = "1024";
  std::string decode = "256";
  std::string policy = "reallocate";
  eval::WalkOptions walk;
  NeedleArguments needle;
  RulerArguments ruler;
  eval::QualityGates gates;
  bool force = false;
};

// Returns a request for every policy on every base, at every budget.
choose::CompareRequest MakeRequest(const CompareArguments& args, const std::string& device) {
  KVC_CHECK(args.policies.empty() == args.budgets.empty(), kUsage,
            "--policy and --budget: expected both or neither, got {} and {}", args.policies.size(),
            args.budgets.size());
  choose::CompareRequest request = args.request;
  request.device = device;
  for (const std::string& budget : args.budgets) {
    request.budgets.push_back({budget, ParseBudget(budget, "--budget")});
  }
  std::vector<budget::NamedPolicy> policies;
  for (const std::string& policy : args.policies) policies.push_back(budget::ParsePolicy(policy));
  if (policies.empty()) return request;
  for (const fs::path& base : args.bases) request.bases.push_back({base, policies});
  if (request.bases.empty()) request.bases.push_back({request.reference, policies});
  return request;
}

// Returns every file and folder that is read.
std::vector<fs::path> InputsOf(const CompareArguments& args) {
  std::vector<fs::path> inputs = {args.request.reference, args.needle.haystack};
  for (const auto* more :
       {&args.request.bundles, &args.bases, &args.request.profiles, &args.text}) {
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
  tasks.walk.policy = ParseDecodePolicy(args.policy);
  if (!args.text.empty()) {
    tasks.samples = eval::CutSamples(tokenizer, eval::ReadAll(args.text), tasks.walk);
  }
  tasks.needle = args.needle.Resolve(tasks.walk.policy, seed);
  const std::string haystack =
      args.needle.haystack.empty() ? "" : eval::ReadHaystack(args.needle.haystack);
  if (!haystack.empty()) tasks.cells = eval::PlanNeedles(tokenizer, haystack, tasks.needle);
  if (args.ruler.samples > 0) {
    KVC_CHECK(!haystack.empty(), kUsage, "--ruler: expected --haystack, got none");
    RulerArguments ruler = args.ruler;
    if (ruler.lengths.empty()) ruler.lengths = args.needle.lengths;
    tasks.ruler = eval::PlanRuler(tokenizer, haystack, ruler.Resolve(seed));
  }
  return tasks;
}

// Checks before anything is loaded that what the tasks feed fits every model.
void CheckLengths(const choose::CompareRequest& request, const choose::CompareTasks& tasks) {
  std::vector<fs::path> bundles = {request.reference};
  bundles.insert(bundles.end(), request.bundles.begin(), request.bundles.end());
  for (const auto& base : request.bases) bundles.push_back(base.bundle);
  const int64_t ruler = eval::LongestPrompt(tasks.ruler) - 1;  // an answer's last is not fed
  for (const fs::path& bundle : bundles) {
    if (!tasks.samples.empty()) {
      eval::CheckFitsContext(bundle, "--context and --decode",
                             tasks.walk.context + tasks.walk.decode - 1);
    }
    for (const eval::NeedleCell& cell : tasks.cells) {
      eval::CheckFitsContext(bundle, "--lengths with the answers",
                             eval::LongestNeedle(cell.prompts));
    }
    eval::CheckFitsContext(bundle, "--ruler-lengths", ruler);
  }
}

CommandResult RunCompare(const CompareArguments& args, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const choose::CompareRequest request = MakeRequest(args, BackendDevice(common));
  const auto tokenizer = Tokenizer::Load(request.reference);
  const choose::CompareTasks tasks = MakeTasks(args, *tokenizer, common.seed);
  CheckLengths(request, tasks);
  for (const std::string& output : {args.output, args.prompts}) {
    CheckOutputApart(output, InputsOf(args));
  }
  const bool writes = common.ranks->is_first();
  if (writes && !args.prompts.empty()) {
    WriteJsonFile(args.prompts, choose::PromptsToJson(tasks.walk, tasks.samples, tasks.cells,
                                                      tasks.needle.question_before));
  }
  if (common.dry_run) {
    return {{{"samples", tasks.samples.size()},
             {"needles", tasks.prompts()},
             {"ruler_prompts", tasks.ruler.size()},
             {"dry_run", true}},
            {}};
  }
  const fs::path partial = args.output.empty() ? "" : args.output + ".partial";
  if (writes && args.force && !partial.empty()) fs::remove(partial);
  const choose::Comparison comparison = choose::RunComparison(
      request, tasks, *tokenizer, partial, pool, *MakeProgress(common), *common.ranks);
  CommandResult result = WithGates(ToJson(comparison), choose::CheckGates(args.gates, comparison),
                                   [comparison] { PrintComparison(comparison); });
  if (writes && !args.output.empty()) {
    WriteJsonFile(args.output, result.json);
    fs::remove(partial);
  }
  return result;
}

void AddPolicyOptions(CLI::App& app, CompareArguments& args) {
  choose::CompareRequest& request = args.request;
  app.add_option("reference", request.reference, "Bundle that the others are compared with")
      ->required();
  app.add_option("--bundle", request.bundles, "Bundle as it was exported; repeatable");
  app.add_option(
         "--policy", args.policies,
         "METHOD[/SCORER[/LOSS]][@TIERS] as in kvc-export, no export needed: uniform/snapkv, "
         "lukv@0,1/8,1/4,1, "
         "lukv/output-error:pool=15/output-error; repeatable")
      ->take_all();
  app.add_option("--budget", args.budgets, "Budgets of every policy: 50%,25%")->delimiter(',');
  app.add_option(
      "--base", args.bases,
      "Bundle whose weights policies run on, thin or not; repeatable; default: REFERENCE");
  app.add_option("--profile", request.profiles, "Profile of a base; repeatable");
  app.add_option("--sinks", request.sinks, "First tokens that no policy drops")
      ->capture_default_str();
  app.add_option(
      "--window", request.window,
      "Newest tokens that no policy drops; default: as kvc-export's, 4 instead of 12 where "
      "--decode-policy appends");
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
      ->check(ZeroOrMore())
      ->capture_default_str();
  AddNeedleOptions(app, args.needle);
  app.add_option("--ruler", args.ruler.samples, "RULER-style prompts for each task; 0: none")
      ->check(ZeroOrMore())
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
  AddPolicyOptions(*sub, *args);
  AddTaskOptions(*sub, *args);
  AddPerplexityGate(*sub, args->gates);
  AddDivergenceGates(*sub, args->gates);
  AddNeedleGate(*sub, args->gates);
  AddScoreGate(*sub, args->gates);
  return {sub, [args](const CommonOptions& common) { return RunCompare(*args, common); }};
}

}  // namespace kvc::tools
