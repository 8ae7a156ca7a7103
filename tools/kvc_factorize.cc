// kvc-factorize: truncates the key projections of a checkpoint, so that its cached keys are thin.

#include <cstdio>

#include "core/error.h"
#include "factorize/factorize_model.h"
#include "model/threads.h"
#include "tools/common_options.h"

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
  std::string svd = "lapack";
  std::string tune = "none";
  bool spread = false;
  bool control = false;
};

void AddOptions(CLI::App& app, Arguments& args) {
  app.add_option("model", args.model, "Hugging Face directory")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option("--rank", args.rank, "Key width to keep: a share, or dimensions of a group")
      ->capture_default_str();
  app.add_option("--layout", args.options.layout, "auto, absorb, latent:N or latent:heads")
      ->capture_default_str();
  app.add_option("--objective",
                 args.objective,
                 "auto, weight, input, input-query, input-attention-query or logit")
      ->capture_default_str();
  app.add_option("--calib", args.calibration, "Calibration text, UTF-8 or .jsonl; repeatable");
  app.add_option("--calib-tokens", args.calib_tokens, "Tokens of it to use")->capture_default_str();
  app.add_option("--window", args.window, "Tokens of a window")->capture_default_str();
  app.add_option("--held-back", args.options.held_back, "Further windows that measure the result")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--svd", args.svd, "Decomposition library")
      ->check(CLI::IsMember({"lapack", "eigen"}))
      ->capture_default_str();
  app.add_option("--tune", args.tune, "none; local and global come with a later version")
      ->check(CLI::IsMember({"none", "local", "global"}))
      ->capture_default_str();
  app.add_flag("--spread", args.spread, "Spread ranks over layers; comes with a later version");
  app.add_flag("--control", args.control, "Control run of --tune; comes with a later version");
  app.add_flag("--force", args.options.force, "Replace a directory that is not empty");
}

void Resolve(Arguments& args) {
  KVC_CHECK(args.tune == "none" && !args.control,
            kUnsupported,
            "--tune: expected none, got ",
            args.tune,
            ": tuning is not in this version");
  KVC_CHECK(!args.spread, kUnsupported, "--spread: ranks are uniform in this version");
  auto& options = args.options;
  options.model = args.model;
  options.output = args.output;
  options.rank = kvc::ParseRank(args.rank, "--rank");
  options.objective = kvc::factorize::ObjectiveFromName(args.objective);
  options.calibration_tokens = kvc::ParseLength(args.calib_tokens, "--calib-tokens");
  options.window = kvc::ParseLength(args.window, "--window");
  options.calibration.assign(args.calibration.begin(), args.calibration.end());
  options.svd = args.svd == "eigen" ? kvc::factorize::SvdBackend::kEigen
                                    : kvc::factorize::SvdBackend::kLapack;
}

void PrintText(const Json& result) {
  std::printf("layout      %s, objective %s\n",
              result["layout"].get<std::string>().c_str(),
              result["objective"].get<std::string>().c_str());
  std::printf("key bytes   %.1f %% of the original\n",
              100.0 * result["key_bytes_share"].get<double>());
  if (result.contains("group_rank")) {
    std::printf("rank        %lld of %lld for each group\n",
                result["group_rank"].get<long long>(),
                result["group_width"].get<long long>());
    std::printf("rebuild     %lld multiply-adds for each cached token\n",
                result["rebuild_macs_per_token"].get<long long>());
  }
  if (result.contains("kld_before_tuning")) {
    std::printf("held back   KLD %.4f, perplexity %.3f (source %.3f)\n",
                result["kld_before_tuning"].get<double>(),
                result["perplexity"].get<double>(),
                result["perplexity_source"].get<double>());
  }
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
      "  kvc-factorize gpt2 -o thin --rank 32 --objective weight --json");
  return kvc::tools::RunCommand(
      argc,
      argv,
      "kvc-factorize",
      app,
      common,
      [&]() -> Json {
        Resolve(args);
        kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
        if (common.dry_run) return kvc::factorize::PlanFactorization(args.options);
        const auto progress = kvc::tools::MakeProgress(common);
        return kvc::factorize::FactorizeModel(args.options, *progress);
      },
      PrintText);
}
