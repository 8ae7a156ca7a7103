// kvc-profile: measures which tokens each head will need, and how well scorers find them.

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "core/cache/tier_list.h"
#include "core/checkpoint/model_config.h"
#include "model/threads.h"
#include "pipeline/profile_stage.h"
#include "pipeline/profile_summary.h"
#include "tools/common_options.h"
#include "tools/profile_text.h"

namespace kvc::tools {
namespace {

// What is chosen for the model.
constexpr char kAuto[] = "auto";

// Options as typed; Resolve makes the request from them.
struct Arguments {
  pipeline::ProfileRequest request;
  std::string model, output, lukv_table;
  std::vector<std::string> calibration;
  std::vector<std::string> scorers = {kAuto, "snapkv"};
  std::string context = "1024";
  std::string horizon = "64";
  std::string positions;
  std::string continuation = "teacher";
  std::string importance = "oracle";
  std::string tiers = kAuto;
};

void AddOptions(CLI::App& app, Arguments& args) {
  auto& options = args.request.options;
  app.add_option("model", args.model, "Hugging Face directory, thin or not")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option(
         "--calib", args.calibration,
         "Calibration text, UTF-8 or .jsonl; repeatable: budgets from several kinds of text "
         "carry further, each file weighs by its length")
      ->required();
  app.add_option(
         "--scorer", args.scorers,
         "snapkv, expected-attention, keydiff, knorm, streaming or output-error; options as in "
         "output-error:prompt=1024; repeatable; auto: output-error:prompt=1024, without the prompt "
         "for keys that are thin behind their rotation")
      ->capture_default_str();
  app.add_option("--windows", options.windows, "Calibration windows")->capture_default_str();
  app.add_option("--context", args.context, "Tokens of a window that are cached and scored")
      ->capture_default_str();
  app.add_option("--horizon", args.horizon, "Tokens behind them that show what was needed")
      ->capture_default_str();
  app.add_option("--positions", args.positions,
                 "Positions that bases and steps of tiers should fit: fewer are coded better, more "
                 "of them worse; default: the model's context");
  app.add_option("--sinks", options.sinks, "First tokens, always kept")->capture_default_str();
  app.add_option("--window", options.window, "Newest tokens, always kept")->capture_default_str();
  app.add_option("--continuation", args.continuation,
                 "The horizon: teacher (the text goes on) or sample (the model does)")
      ->capture_default_str();
  app.add_option("--temperature", args.request.temperature, "Of --continuation sample; 0: greedy")
      ->capture_default_str();
  app.add_option("--question", args.request.questions,
                 "With --continuation sample: the horizon is this question and the model's answer; "
                 "repeatable, every context meets every question");
  app.add_option("--importance", args.importance,
                 "Head importance: oracle (mass of what is needed) or needle (who finds the asked "
                 "fact; oracle where the model answers less than a quarter of the questions)")
      ->capture_default_str();
  app.add_option(
         "--tiers", args.tiers,
         "What a token may keep, for the curves with tiers: bits (1x8,1x4,1x2), mixtures of "
         "them (x3,x1.5), shares of its width (0,1/8,1/4,1); 0,1: no such curves; auto: "
         "1x8,x6,x4,x3,x2,x1, or 0,1/8,1/4,1 for latents, which take bits by choice")
      ->capture_default_str();
  app.add_option("--needle-tests", options.needle_tests, "Questions asked with --importance needle")
      ->capture_default_str();
  app.add_option("--lukv-table", args.lukv_table,
                 "Also write LU-KV's table of pruning ratios [99, layers, kv heads] for the first "
                 "scorer, .npy or .safetensors");
  app.add_flag("--force", args.request.force, "Replace a directory that is not empty, start anew");
}

pipeline::ProfileRequest Resolve(const Arguments& args) {
  pipeline::ProfileRequest request = args.request;
  request.model = args.model;
  request.output = args.output;
  request.lukv_table = args.lukv_table;
  request.calibration.assign(args.calibration.begin(), args.calibration.end());
  auto& options = request.options;
  options.context = ParseLength(args.context, "--context");
  options.horizon = ParseLength(args.horizon, "--horizon");
  if (!args.positions.empty()) options.positions = ParseLength(args.positions, "--positions");
  options.continuation = profile::ContinuationFromName(args.continuation);
  options.importance = profile::ImportanceFromName(args.importance);
  std::optional<ModelConfig> config;
  const auto model = [&]() -> const ModelConfig& {
    if (!config) config = ReadModelConfig(args.model);
    return *config;
  };
  options.tiers =
      args.tiers == kAuto ? profile::DefaultTiers(model()) : ParseNamedTiers(args.tiers, "--tiers");
  options.scorers.clear();
  for (const std::string& name : args.scorers) {
    options.scorers.push_back(name == kAuto ? profile::DefaultScorer(model())
                                            : ParseScorer(name, "--scorer"));
  }
  return request;
}

CommandResult Run(const Arguments& args, const CommonOptions& common) {
  pipeline::ProfileRequest request = Resolve(args);
  request.seed = common.seed;
  model::SetThreads(CheckCommonOptions(common));
  const auto progress = MakeProgress(common);
  if (common.dry_run) {
    const auto plan = pipeline::PlanProfileStage(request, *progress, *common.ranks);
    CommandResult result{pipeline::ToJson(plan), [plan] { PrintProfilePlan(plan); }};
    result.json["dry_run"] = true;
    return result;
  }
  const auto profiled = pipeline::RunProfileStage(request, *progress, *common.ranks);
  return {pipeline::ToJson(profiled, request.options),
          [profiled, options = request.options] { PrintProfile(profiled, options); }};
}

}  // namespace
}  // namespace kvc::tools

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Profiles the heads of a checkpoint: oracle importance and utility curves");
  CommonOptions common;
  Arguments args;
  AddOptions(app, args);
  AddCommonOptions(app, common,
                   "  kvc-profile model -o profile --calib book.txt\n"
                   "  kvc-profile thin -o profile --calib a.txt --calib b.jsonl --scorer snapkv "
                   "--scorer keydiff --windows 32 --json");
  return RunCommand(
      argc, argv, "kvc-profile", app, common, [&] { return Run(args, common); }, RankUse::kAny);
}
