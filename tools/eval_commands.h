#pragma once
// The subcommands of kvc-eval: each adds its options to the app and returns what it measured.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// One subcommand: its parser, what it does, and how its result reads as text.
struct EvalCommand {
  CLI::App* app = nullptr;
  std::function<Json(const CommonOptions&)> run;
  std::function<void(const Json&)> print;
};

// Registers ppl, kld, needle, ruler, lines, longbench, compare, logits and tokenize on `app`, in
// that order.
[[nodiscard]] std::vector<EvalCommand> AddEvalCommands(CLI::App& app);

}  // namespace kvc::tools
