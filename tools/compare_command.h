#pragma once
// `kvc-eval compare`: bundles and policies against a reference, on the same text and needles, in
// one pass that can be interrupted and gone on with.

#include "tools/eval_commands.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// Registers the subcommand on `app`.
[[nodiscard]] EvalCommand AddCompare(CLI::App& app);

}  // namespace kvc::tools
