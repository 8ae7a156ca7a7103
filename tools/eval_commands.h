#pragma once
// The subcommands of kvc-eval. Each adds its options to the app and reports what it measured.

#include <functional>

#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// One subcommand: its parser and its action.
struct EvalCommand {
  CLI::App* app = nullptr;
  std::function<CommandResult(const CommonOptions&)> run;
};

[[nodiscard]] EvalCommand AddPpl(CLI::App& app);
[[nodiscard]] EvalCommand AddKld(CLI::App& app);
[[nodiscard]] EvalCommand AddNeedle(CLI::App& app);
// Add the tasks whose answers are marked 0 to 1. Each returns
//   question, score (mean over the cells), cells [{task, length, score, stderr, samples}], cache
// where length is tokens for ruler, lines of the record for lines, absent for longbench.
[[nodiscard]] EvalCommand AddRuler(CLI::App& app);
[[nodiscard]] EvalCommand AddLines(CLI::App& app);
[[nodiscard]] EvalCommand AddLongBench(CLI::App& app);
// Adds the comparison of bundles and policies with a reference, on the same text and needles, in
// one pass that can be interrupted and resumed.
[[nodiscard]] EvalCommand AddCompare(CLI::App& app);
[[nodiscard]] EvalCommand AddLogits(CLI::App& app);
[[nodiscard]] EvalCommand AddTokenize(CLI::App& app);

}  // namespace kvc::tools
