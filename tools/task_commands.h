#pragma once
// kvc-eval ruler, lines and longbench: tasks whose answers are marked 0 to 1. Each prints and
// returns
//   question, score (mean over the cells), cells [{task, length, score, stderr, samples}], cache
// where length is tokens for ruler, lines of the record for lines, absent for longbench.

#include "tools/eval_commands.h"

namespace kvc::tools {

[[nodiscard]] EvalCommand AddRuler(CLI::App& app);
[[nodiscard]] EvalCommand AddLines(CLI::App& app);
[[nodiscard]] EvalCommand AddLongBench(CLI::App& app);

}  // namespace kvc::tools
