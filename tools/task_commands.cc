// kvc-eval ruler, lines and longbench.

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "eval/compare/results_json.h"
#include "eval/compare/same_inputs.h"
#include "eval/tasks/lines.h"
#include "eval/tasks/longbench.h"
#include "eval/tasks/ruler.h"
#include "tools/eval_arguments.h"
#include "tools/eval_commands.h"
#include "tools/gate_options.h"
#include "tools/number_checks.h"
#include "tools/results_text.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

// Arguments that the three share.
struct TaskArguments {
  std::string bundle;
  std::string question = "before";
  std::string policy = "reallocate";
  int64_t batch = 4;
  eval::QualityGates gates;
};

void AddTaskOptions(CLI::App& app, TaskArguments& args) {
  app.add_option("bundle", args.bundle, "Bundle to measure")->required();
  app.add_option("--batch", args.batch, "Prompts answered together")
      ->check(AboveZero())
      ->capture_default_str();
  AddQuestionOption(app, args.question);
  AddDecodePolicy(app, args.policy);
  AddScoreGate(app, args.gates);
}

using Planner = std::function<std::vector<eval::TaskPrompt>(const Tokenizer&)>;

void PrintTasks(const eval::TaskResult& measured, const std::string& question) {
  std::printf("score       %.1f %% (mean of the cells, question %s the compression)\n",
              100.0 * measured.scores.score, question.c_str());
  std::printf("%-22s %8s %8s %8s %8s\n", "task", "length", "score", "+-", "samples");
  for (const eval::TaskCell& cell : measured.scores.cells) {
    std::printf("%-22s %8s %7.1f%% %7.1f%% %8lld\n", cell.task.c_str(),
                cell.length > 0 ? std::to_string(cell.length).c_str() : "-", 100.0 * cell.score,
                100.0 * cell.score_stderr, static_cast<long long>(cell.samples));
  }
  PrintCache(measured.cache.Mean());
}

CommandResult RunTasks(const TaskArguments& args,
                       const CommonOptions& common,
                       const Planner& plan) {
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const auto tokenizer = Tokenizer::Load(args.bundle);
  const std::vector<eval::TaskPrompt> prompts = plan(*tokenizer);
  const int64_t longest = eval::LongestPrompt(prompts);
  eval::CheckFitsContext(args.bundle, "prompts and answers", longest);
  if (common.dry_run) return {{{"prompts", prompts.size()}, {"longest", longest}}, {}};
  std::vector<eval::AskedPrompt> asked;
  asked.reserve(prompts.size());
  for (const eval::TaskPrompt& prompt : prompts) asked.push_back(prompt.asked);
  eval::CheckSameInputs(*common.ranks, args.bundle, asked);
  const auto session = eval::OpenSession(args.bundle, SessionOptions(common, pool));
  const eval::AskOptions options = {args.question == "before", ParseDecodePolicy(args.policy)};
  const eval::TaskResult measured = eval::MeasureTasks(
      *session, *tokenizer, prompts, options, args.batch, *MakeProgress(common), *common.ranks);
  return WithGates({{"question", args.question},
                    {"score", measured.scores.score},
                    {"cells", eval::CellsToJson(measured.scores.cells)},
                    {"cache", eval::CacheToJson(measured.cache.Mean())}},
                   eval::CheckMeasurement(args.gates, measured.scores),
                   [measured, question = args.question] { PrintTasks(measured, question); });
}

struct RulerCommand {
  TaskArguments common;
  std::string haystack;
  RulerArguments ruler;
};

struct LinesCommand {
  TaskArguments common;
  std::string file;
  eval::LinesOptions options;
};

struct LongBenchCommand {
  TaskArguments common;
  std::string file;
  std::string prompt_file;
  std::string max_length = "4k";
  eval::LongBenchOptions options;
};

// Returns a template without the line break that ends the file's last line.
std::string ReadTemplate(const std::string& file) {
  std::string text = ReadFile(file);
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace

EvalCommand AddRuler(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "ruler", "RULER-style tasks: needles of four kinds, tracking, common and frequent words");
  auto args = std::make_shared<RulerCommand>();
  args->ruler.lengths = {"1k"};
  AddTaskOptions(*sub, args->common);
  sub->add_option("--haystack", args->haystack, "UTF-8 text around the facts")->required();
  sub->add_option("--tasks", args->ruler.tasks,
                  "single, multi-key, multi-value, multi-query, tracking, common-words, "
                  "frequent-words; default: all")
      ->delimiter(',');
  sub->add_option("--lengths", args->ruler.lengths, "Tokens of prompt and answer")
      ->delimiter(',')
      ->capture_default_str();
  sub->add_option("--samples", args->ruler.samples, "Prompts for each task and length")
      ->check(AboveZero())
      ->capture_default_str();
  return {sub, [args](const CommonOptions& common) {
            return RunTasks(args->common, common, [&](const Tokenizer& tokenizer) {
              return eval::PlanRuler(tokenizer, eval::ReadHaystack(args->haystack),
                                     args->ruler.Resolve(common.seed));
            });
          }};
}

EvalCommand AddLines(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("lines", "Line retrieval in LongChat's format");
  auto args = std::make_shared<LinesCommand>();
  AddTaskOptions(*sub, args->common);
  sub->add_option("--file", args->file, "JSONL: prompt, random_idx, expected_number")->required();
  sub->add_option("--lines", args->options.lines,
                  "Lines of the record that are kept: 25,50,100; default: all")
      ->delimiter(',')
      ->check(AboveZero());
  sub->add_option("--samples", args->options.samples, "First prompts of the file; 0: all")
      ->check(ZeroOrMore())
      ->capture_default_str();
  return {sub, [args](const CommonOptions& common) {
            return RunTasks(args->common, common, [&](const Tokenizer& tokenizer) {
              return eval::PlanLines(tokenizer, args->file, args->options);
            });
          }};
}

EvalCommand AddLongBench(CLI::App& app) {
  CLI::App* sub = app.add_subcommand("longbench", "LongBench's English files and metrics");
  auto args = std::make_shared<LongBenchCommand>();
  AddTaskOptions(*sub, args->common);
  sub->add_option("file", args->file, "JSONL: input, context, answers, dataset")->required();
  sub->add_option(
      "--template", args->prompt_file,
      "Text file with {context} and {input} instead of the own prompts; the line break at "
      "its end does not count");
  sub->add_option("--max-length", args->max_length,
                  "Tokens of prompt and answer; the middle of a longer context is left out")
      ->capture_default_str();
  sub->add_option("--samples", args->options.samples, "First prompts of the file; 0: all")
      ->check(ZeroOrMore())
      ->capture_default_str();
  return {sub, [args](const CommonOptions& common) {
            eval::LongBenchOptions options = args->options;
            options.max_length = ParseLength(args->max_length, "--max-length");
            if (!args->prompt_file.empty()) options.prompt = ReadTemplate(args->prompt_file);
            return RunTasks(args->common, common, [&](const Tokenizer& tokenizer) {
              return eval::PlanLongBench(tokenizer, args->file, options);
            });
          }};
}

}  // namespace kvc::tools
