// kvc-factorize: truncates the key projections of a checkpoint, so that its cached keys are thin.

#include "core/error.h"
#include "factorize/factorize_model.h"
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
  std::string svd = "lapack";
  std::string tune = "none";
  std::string tune_tokens = "64k";
  bool control = false;
};

void AddOptions(CLI::App& app, Arguments& args) {
  app.add_option("model", args.model, "Hugging Face directory")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option("--rank", args.rank, "Key width to keep: a share, or dimensions of a group")
      ->capture_default_str();
  app.add_option("--layout",
                 args.options.layout,
                 "auto, absorb, latent:N, latent:heads, post-rope or rope-pairs")
      ->capture_default_str();
  app.add_option("--objective",
                 args.objective,
                 "auto, weight, input, input-query, input-attention-query, logit or attention")
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
  app.add_option("--svd", args.svd, "Decomposition library")
      ->check(CLI::IsMember({"lapack", "eigen"}))
      ->capture_default_str();
  app.add_flag("--spread", args.options.spread, "Spread ranks over layers, --rank is their mean");
  app.add_option("--tune", args.tune, "none, or local: each layer against the full model's")
      ->check(CLI::IsMember({"none", "local", "global"}))
      ->capture_default_str();
  app.add_option("--tune-tokens", args.tune_tokens, "Tokens of the calibration text to tune on")
      ->capture_default_str();
  app.add_option("--tune-passes", args.options.tuning.passes, "Passes over them, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--lr", args.options.tuning.learning_rate, "Step relative to the weights' size")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str();
  app.add_flag("--control", args.control, "Control run of --tune global; not in this version");
  app.add_flag("--force", args.options.force, "Replace a directory that is not empty");
}

void Resolve(Arguments& args) {
  KVC_CHECK(args.tune != "global" && !args.control,
            kUnsupported,
            "--tune: expected none or local, got ",
            args.control ? "--control" : "global",
            ": tuning of the whole model is not in this version");
  auto& options = args.options;
  options.model = args.model;
  options.tune = args.tune == "local";
  options.tune_tokens = kvc::ParseLength(args.tune_tokens, "--tune-tokens");
  options.output = args.output;
  options.rank = kvc::ParseRank(args.rank, "--rank");
  options.objective = kvc::factorize::ObjectiveFromName(args.objective);
  options.calibration_tokens = kvc::ParseLength(args.calib_tokens, "--calib-tokens");
  options.window = kvc::ParseLength(args.window, "--window");
  options.lengths.clear();
  for (const std::string& length : args.lengths) {
    options.lengths.push_back(kvc::ParseLength(length, "--lengths"));
  }
  options.calibration.assign(args.calibration.begin(), args.calibration.end());
  options.svd = args.svd == "eigen" ? kvc::factorize::SvdBackend::kEigen
                                    : kvc::factorize::SvdBackend::kLapack;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes the keys of a checkpoint thin");
  kvc::tools::CommonOptions common;
  Arguments args;
  AddOptions(app, args);
  kvc::tools::AddCommonOptions(
      app,
      common,
      "  kvc-factorize model -o thin --rank 25% --layout latent:1 --calib book.txt\n"
      "  kvc-factorize model -o thin --spread --tune local --calib book.txt --calib more.txt\n"
      "  kvc-factorize mistral -o thin --lengths 32k,128000 --dry-run");
  return kvc::tools::RunCommand(
      argc,
      argv,
      "kvc-factorize",
      app,
      common,
      [&]() -> Json {
        Resolve(args);
        args.options.tuning.seed = common.seed;
        kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
        if (common.dry_run) return kvc::factorize::PlanFactorization(args.options);
        const auto progress = kvc::tools::MakeProgress(common);
        return kvc::factorize::FactorizeModel(args.options, *progress);
      },
      kvc::tools::PrintFactorization);
}
