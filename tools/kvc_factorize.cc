// kvc-factorize: truncates the key projections of a checkpoint, so that its cached keys are thin.

#include <algorithm>
#include <optional>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/io/json.h"
#include "factorize/factorize_model.h"
#include "factorize/tune_options.h"
#include "model/threads.h"
#include "tools/common_options.h"
#include "tools/factorize_text.h"

namespace {

using kvc::Json;

struct Arguments {
  kvc::factorize::FactorizeOptions options;
  std::string model, output;
  std::string rank = "25%";
  std::string objective = "auto";
  std::string calib_tokens = "16k";
  std::string window = "512";
  std::vector<std::string> calibration;
  std::vector<std::string> lengths = {"4k", "32k", "128k", "1M"};
  std::string svd;
  std::string source;
  std::vector<std::string> tune;
  std::string tune_tokens = "64k";
  std::optional<int64_t> passes;
  std::string step_tokens = "1024";
  std::optional<double> learning_rate;
  std::string loss;
  std::string precision = "auto";
};

void AddOptions(CLI::App& app, Arguments& args) {
  app.add_option("model", args.model, "Hugging Face directory")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option("--rank", args.rank, "Key width to keep: a share, or dimensions of a group")
      ->capture_default_str();
  app.add_option("--layout", args.options.layout,
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
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--lengths", args.lengths, "Tokens in the memory table of --dry-run")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--svd", args.svd, "Decomposition library; with --device cuda cusolver")
      ->check(CLI::IsMember({"lapack", "eigen", "cusolver"}))
      ->default_str("lapack");
  app.add_flag("--spread", args.options.spread, "Spread ranks over layers, --rank is their mean");
  app.add_flag("--force", args.options.force, "Replace a directory that is not empty");
}

void AddTuning(CLI::App& app, Arguments& args) {
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
      ->check(CLI::PositiveNumber);
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

void ResolveTuning(Arguments& args) {
  auto& options = args.options;
  const auto asked = [&](const char* kind) {
    return std::find(args.tune.begin(), args.tune.end(), kind) != args.tune.end();
  };
  options.tune = asked("local");
  options.tune_global = asked("global");
  KVC_CHECK(!asked("none") || args.tune.size() == 1, kUsage,
            "--tune: expected none alone, or local, global or local,global");
  KVC_CHECK(args.loss.empty() || options.tune_global, kUsage,
            "--loss: expected --tune global, which has one, got none");
  options.tune_tokens = kvc::ParseLength(args.tune_tokens, "--tune-tokens");
  if (!args.loss.empty()) options.global.loss = kvc::factorize::OutputLossFromName(args.loss);
  auto& passes = options.tune_global ? options.global.passes : options.tuning.passes;
  passes = args.passes.value_or(passes);
  auto& step = options.tune_global ? options.global.step_tokens : options.tuning.step_tokens;
  step = kvc::ParseLength(args.step_tokens, "--tune-step-tokens");
  auto& rate = options.tune_global ? options.global.learning_rate : options.tuning.learning_rate;
  rate = args.learning_rate.value_or(rate);
}

// What a thin model has already cannot be asked for again.
void CheckSource(const CLI::App& app, const Arguments& args, bool dry_run) {
  if (args.source.empty()) return;
  for (const char* option : {"--rank", "--layout", "--objective", "--spread", "--svd"}) {
    KVC_CHECK(app.count(option) == 0, kUsage,
              "{}: expected a MODEL with full keys, got --source, whose MODEL is thin already",
              option);
  }
  KVC_CHECK(!dry_run, kUsage, "--dry-run: expected a MODEL with full keys, got --source");
}

void Resolve(Arguments& args) {
  auto& options = args.options;
  options.model = args.model;
  options.source = args.source;
  options.output = args.output;
  ResolveTuning(args);
  options.rank = kvc::ParseRank(args.rank, "--rank");
  options.objective = kvc::factorize::ObjectiveFromName(args.objective);
  options.calibration_tokens = kvc::ParseLength(args.calib_tokens, "--calib-tokens");
  options.window = kvc::ParseLength(args.window, "--window");
  options.lengths.clear();
  for (const std::string& length : args.lengths) {
    options.lengths.push_back(kvc::ParseLength(length, "--lengths"));
  }
  options.calibration.assign(args.calibration.begin(), args.calibration.end());
}

// Where the tunings compute, and how precisely the one of the whole model.
void ChooseCompute(const std::string& device, Arguments& args) {
  auto& options = args.options;
  if (!options.tunes()) return;
  options.global.compute = kvc::model::ChooseCompute(device, args.precision);
  options.tuning.cuda = options.global.compute.cuda;
}

// The library that decomposes: where --device says unless it is named.
kvc::linalg::SvdBackend ChooseSvd(const std::string& name, const std::string& device) {
  using kvc::linalg::SvdBackend;
  if (name == "cusolver" || (name.empty() && device == "cuda")) return SvdBackend::kCuSolver;
  return name == "eigen" ? SvdBackend::kEigen : SvdBackend::kLapack;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes the keys of a checkpoint thin");
  kvc::tools::CommonOptions common;
  Arguments args;
  AddOptions(app, args);
  AddTuning(app, args);
  kvc::tools::AddCommonOptions(
      app, common,
      "  kvc-factorize model -o thin --rank 25% --layout latent:1 --calib book.txt\n"
      "  kvc-factorize model -o thin --spread --tune local --calib book.txt --calib more.txt\n"
      "  kvc-factorize thin -o better --source model --tune global --calib book.txt\n"
      "  kvc-factorize mistral -o thin --lengths 32k,128000 --dry-run");
  return kvc::tools::RunCommand(
      argc, argv, "kvc-factorize", app, common,
      [&]() -> Json {
        Resolve(args);
        CheckSource(app, args, common.dry_run);
        args.options.tuning.seed = common.seed;
        args.options.global.seed = common.seed;
        args.options.svd = ChooseSvd(args.svd, common.device);
        ChooseCompute(common.device, args);
        // Fails without the device, before any work.
        (void)kvc::linalg::Svd::Create(args.options.svd);
        kvc::model::SetThreads(
            kvc::tools::CheckCommonOptions(common, kvc::tools::CudaSupport::kByCommand));
        if (common.dry_run) return kvc::factorize::PlanFactorization(args.options);
        const auto progress = kvc::tools::MakeProgress(common);
        return kvc::factorize::FactorizeModel(args.options, *progress);
      },
      kvc::tools::PrintFactorization);
}
