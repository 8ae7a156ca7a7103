// kvc-eval: measures what a compressed cache costs in quality, through the real cache.

#include <algorithm>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "tools/eval_commands.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Measures bundles: perplexity, KL divergence, needles and other tasks, logits");
  CommonOptions options;
  AddExactOption(app, options);
  AddCommonOptions(app, options,
                   "  kvc-eval ppl bundle --text book.txt --context 1k --decode 256\n"
                   "  kvc-eval kld bundle --against full-bundle --text book.txt --json");
  // The common options may follow the subcommand; subcommands inherit this setting when they are
  // created.
  app.fallthrough();
  const std::vector<EvalCommand> commands = {AddPpl(app),     AddKld(app),    AddNeedle(app),
                                             AddRuler(app),   AddLines(app),  AddLongBench(app),
                                             AddCompare(app), AddLogits(app), AddTokenize(app)};
  app.require_subcommand(1);
  const auto run = [&] {
    const auto chosen =
        std::ranges::find_if(commands, [](const EvalCommand& c) { return c.app->parsed(); });
    KVC_CHECK(chosen != commands.end(), kUsage, "kvc-eval: expected a subcommand");
    return chosen->run(options);
  };
  return RunCommand(argc, argv, "kvc-eval", app, options, run, RankUse::kAny);
}
