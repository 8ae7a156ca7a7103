// kvc-eval: measures what a compressed cache costs in quality, through the real cache.

#include <CLI/CLI.hpp>

#include "core/io/json.h"
#include "tools/eval_commands.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Measures bundles: perplexity, KL divergence, needles and other tasks, logits");
  CommonOptions options;
  AddCommonOptions(app, options,
                   "  kvc-eval ppl bundle --text book.txt --context 1k --decode 256\n"
                   "  kvc-eval kld bundle --against full-bundle --text book.txt --json");
  // The common options may stand behind the subcommand; subcommands inherit this when they are
  // made.
  app.fallthrough();
  const std::vector<EvalCommand> commands = AddEvalCommands(app);
  app.require_subcommand(1);

  const auto chosen = [&]() -> const EvalCommand& {
    for (const EvalCommand& command : commands) {
      if (command.app->parsed()) return command;
    }
    KVC_THROW(kUsage, "kvc-eval: expected a subcommand");
  };
  return RunCommand(
      argc, argv, "kvc-eval", app, options, [&] { return chosen().run(options); },
      [&](const kvc::Json& result) {
        if (options.dry_run) {
          std::cout << result.dump(2) << '\n';
        } else {
          chosen().print(result);
        }
      });
}
