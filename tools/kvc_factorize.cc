// kvc-factorize: truncates the key projections of a checkpoint, so that its cached keys are thin.

#include <CLI/CLI.hpp>

#include "factorize/factorize_model.h"
#include "linalg/svd.h"
#include "model/threads.h"
#include "tools/common_options.h"
#include "tools/factorize_options.h"
#include "tools/factorize_text.h"

namespace kvc::tools {
namespace {

CommandResult Run(const CLI::App& app,
                  const FactorizeArguments& args,
                  const CommonOptions& common) {
  const auto options = ResolveFactorizeOptions(app, args, common);
  // Fails without the device, before any work.
  (void)linalg::Svd::Create(options.svd);
  model::SetThreads(CheckCommonOptions(common, DeviceUse::kCuda));
  if (common.dry_run) {
    const auto plan =
        factorize::PlanFactorization(options, args.ranks.value_or(common.ranks->size()));
    return {ToJson(plan), [plan] { PrintFactorization(plan); }};
  }
  const auto result = factorize::FactorizeModel(options, *MakeProgress(common), *common.ranks);
  return {ToJson(result), [result] { PrintFactorization(result); }};
}

}  // namespace
}  // namespace kvc::tools

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Makes the keys of a checkpoint thin");
  CommonOptions common;
  FactorizeArguments args;
  AddFactorizeOptions(app, args);
  AddCommonOptions(app, common,
                   "  kvc-factorize model -o thin --rank 25% --layout latent:1 --calib book.txt\n"
                   "  kvc-factorize model -o thin --spread --tune local --calib book.txt --calib "
                   "more.txt\n"
                   "  kvc-factorize thin -o better --source model --tune global --calib book.txt\n"
                   "  kvc-factorize mistral -o thin --lengths 32k,128000 --dry-run");
  return RunCommand(
      argc, argv, "kvc-factorize", app, common, [&] { return Run(app, args, common); },
      RankUse::kAny);
}
