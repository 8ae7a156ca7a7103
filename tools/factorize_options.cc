#include "tools/factorize_options.h"

#include <algorithm>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "factorize/tune_options.h"
#include "model/compute.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

void AddSource(CLI::App& app, FactorizeArguments& args) {
  app.add_option("model", args.model, "Hugging Face directory")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option("--rank", args.rank, "Key width to keep: a share, or dimensions of a group")
      ->capture_default_str();
  app.add_option("--layout", args.layout,
                 "auto, absorb, latent:N, latent:heads, post-rope or rope-pairs")
      ->capture_default_str();
  app.add_option(
         "--objective", args.objective,
         "auto, weight, input, input-query, input-attention-query, logit, attention or output")
      ->capture_default_str();
  app.add_option("--calib", args.calibration, "Calibration text, UTF-8 or .jsonl; repeatable");
  app.add_option("--calib-tokens", args.calib_tokens, "Tokens of it to use")->capture_default_str();
  app.add_option("--window", args.window, "Tokens of a window")->capture_default_str();
  app.add_option("--held-back", args.options.held_back, "Further windows that measure the result")
      ->check(ZeroOrMore())
      ->capture_default_str();
  app.add_option("--lengths", args.lengths, "Tokens in the memory table of --dry-run")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--ranks", args.ranks,
                 "Ranks whose cost --dry-run predicts; default: those that a launcher has started")
      ->check(AboveZero());
  app.add_option("--svd", args.svd, "Decomposition library; with --device cuda cusolver")
      ->check(CLI::IsMember({"lapack", "eigen", "cusolver"}))
      ->default_str("lapack");
  app.add_flag("--spread", args.options.spread, "Spread ranks over layers, --rank is their mean");
  app.add_flag("--force", args.options.force, "Replace a directory that is not empty");
}

void AddTuning(CLI::App& app, FactorizeArguments& args) {
  app.add_option("--tune", args.tune,
                 "local: each layer against the full model's; global: the whole model against the "
                 "full one's output; local,global: one after the other")
      ->delimiter(',')
      ->check(CLI::IsMember({"none", "local", "global"}));
  app.add_option("--source", args.source,
                 "MODEL is thin and made from this one: goes on tuning it");
  app.add_option("--tune-tokens", args.tune_tokens, "Tokens of the calibration text to tune on")
      ->capture_default_str();
  app.add_option("--tune-passes", args.passes,
                 "Passes over them, at most; local 4, global 1. Of two tunings the last one's")
      ->check(AboveZero());
  app.add_option("--lr", args.learning_rate,
                 "Step relative to the weights' size and their error; local 0.03, global 0.01. Of "
                 "two tunings the "
                 "last one's")
      ->check(CLI::Range(1e-6, 1.0));
  app.add_option("--loss", args.loss, "Of --tune global: kl to the full model's output, or ce")
      ->default_str("kl");
  app.add_option("--precision", args.precision,
                 "Of --tune global on a CUDA device: f32, or bf16 products with f32 weights, which "
                 "auto is")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str();
  app.add_option("--tune-step-tokens", args.step_tokens,
                 "Tokens of one step of the last tuning, at least one window")
      ->capture_default_str();
  app.add_flag("--control", args.options.control,
               "Gives the full model the same --tune global and reports both");
}

void ResolveTuning(const FactorizeArguments& args, factorize::FactorizeOptions& options) {
  const auto asked = [&](const char* kind) {
    return std::find(args.tune.begin(), args.tune.end(), kind) != args.tune.end();
  };
  options.tune = asked("local");
  options.tune_global = asked("global");
  KVC_CHECK(!asked("none") || args.tune.size() == 1, kUsage,
            "--tune: expected none alone, or local, global or local,global");
  KVC_CHECK(args.loss.empty() || options.tune_global, kUsage,
            "--loss: expected --tune global, which has one, got none");
  options.tune_tokens = ParseLength(args.tune_tokens, "--tune-tokens");
  if (!args.loss.empty()) options.global.loss = factorize::OutputLossFromName(args.loss);
  auto& passes = options.tune_global ? options.global.passes : options.tuning.passes;
  passes = args.passes.value_or(passes);
  auto& step = options.tune_global ? options.global.step_tokens : options.tuning.step_tokens;
  step = ParseLength(args.step_tokens, "--tune-step-tokens");
  auto& rate = options.tune_global ? options.global.learning_rate : options.tuning.learning_rate;
  rate = args.learning_rate.value_or(rate);
}

// Throws for options that set what a thin model already has.
void CheckSource(const CLI::App& app, const FactorizeArguments& args, bool dry_run) {
  if (args.source.empty()) return;
  for (const char* option : {"--rank", "--layout", "--objective", "--spread", "--svd"}) {
    KVC_CHECK(app.count(option) == 0, kUsage,
              "{}: expected a MODEL with full keys, got --source, whose MODEL is thin already",
              option);
  }
  KVC_CHECK(!dry_run, kUsage, "--dry-run: expected a MODEL with full keys, got --source");
}

// Returns the library that decomposes: the one for --device unless it is named.
linalg::SvdBackend ChooseSvd(const std::string& name, const std::string& device) {
  using linalg::SvdBackend;
  if (name == "cusolver" || (name.empty() && device == "cuda")) return SvdBackend::kCuSolver;
  return name == "eigen" ? SvdBackend::kEigen : SvdBackend::kLapack;
}

}  // namespace

void AddFactorizeOptions(CLI::App& app, FactorizeArguments& args) {
  AddSource(app, args);
  AddTuning(app, args);
}

factorize::FactorizeOptions ResolveFactorizeOptions(const CLI::App& app,
                                                    const FactorizeArguments& args,
                                                    const CommonOptions& common) {
  factorize::FactorizeOptions options = args.options;
  options.model = args.model;
  options.source = args.source;
  options.output = args.output;
  ResolveTuning(args, options);
  options.rank = ParseRank(args.rank, "--rank");
  options.layout = factorize::ParseLayout(args.layout);
  options.objective = factorize::ObjectiveFromName(args.objective);
  options.calibration_tokens = ParseLength(args.calib_tokens, "--calib-tokens");
  options.window = ParseLength(args.window, "--window");
  options.lengths.clear();
  for (const std::string& length : args.lengths) {
    options.lengths.push_back(ParseLength(length, "--lengths"));
  }
  options.calibration.assign(args.calibration.begin(), args.calibration.end());
  CheckSource(app, args, common.dry_run);
  options.tuning.seed = common.seed;
  options.global.seed = common.seed;
  options.svd = ChooseSvd(args.svd, common.device);
  if (options.tunes()) {
    options.global.compute = model::ChooseCompute(common.device, args.precision);
    options.tuning.cuda = options.global.compute.cuda;
  }
  return options;
}

}  // namespace kvc::tools
