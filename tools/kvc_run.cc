// kvc-run: generates text with a bundle, from prompts or in a conversation.

#include <CLI/CLI.hpp>

#include "tools/run_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Generates text with a bundle, through its compressed cache");
  CommonOptions common;
  RunOptions options;
  AddRunOptions(app, options);
  AddExactOption(app, common);
  AddCommonOptions(app, common,
                   "  kvc-run bundle --prompt \"Once upon a time\" -n 64\n"
                   "  kvc-run bundle --chat --system \"Be brief.\"\n"
                   "  kvc-run bundle --prompt-file a.txt --prompt-file b.txt --budget 25% --json");
  return RunCommand(argc, argv, "kvc-run", app, common, [&] {
    return options.chat ? RunConversation(options, common) : RunPrompts(options, common);
  });
}
