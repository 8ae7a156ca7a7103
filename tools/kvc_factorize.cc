// kvc-factorize: truncates the key projections of a checkpoint, so that its cached keys are thin.

#include <CLI/CLI.hpp>

#include "core/io/json.h"
#include "factorize/factorize_model.h"
#include "linalg/svd.h"
#include "model/threads.h"
#include "tools/common_options.h"
#include "tools/factorize_options.h"
#include "tools/factorize_text.h"

namespace {

kvc::Json Run(const CLI::App& app,
              const kvc::tools::FactorizeArguments& args,
              const kvc::tools::CommonOptions& common) {
  const auto options = kvc::tools::ResolveFactorizeOptions(app, args, common);
  // Fails without the device, before any work.
  (void)kvc::linalg::Svd::Create(options.svd);
  kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common, kvc::tools::DeviceUse::kCuda));
  if (common.dry_run) {
    return kvc::factorize::ToJson(kvc::factorize::PlanFactorization(options));
  }
  const auto progress = kvc::tools::MakeProgress(common);
  return kvc::factorize::FactorizeModel(options, *progress);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes the keys of a checkpoint thin");
  kvc::tools::CommonOptions common;
  kvc::tools::FactorizeArguments args;
  kvc::tools::AddFactorizeOptions(app, args);
  kvc::tools::AddCommonOptions(
      app, common,
      "  kvc-factorize model -o thin --rank 25% --layout latent:1 --calib book.txt\n"
      "  kvc-factorize model -o thin --spread --tune local --calib book.txt --calib more.txt\n"
      "  kvc-factorize thin -o better --source model --tune global --calib book.txt\n"
      "  kvc-factorize mistral -o thin --lengths 32k,128000 --dry-run");
  return kvc::tools::RunCommand(
      argc, argv, "kvc-factorize", app, common, [&] { return Run(app, args, common); },
      kvc::tools::PrintFactorization);
}
