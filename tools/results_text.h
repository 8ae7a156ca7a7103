#pragma once
// Parts of results that several commands print.

#include <functional>
#include <vector>

#include "eval/compare/quality_gates.h"
#include "runtime/sequence.h"
#include "tools/common_options.h"

namespace kvc::tools {

void PrintCache(const runtime::CacheCounters& cache);

// Returns the result of a measurement with limits: the gates are added to its JSON, printed after
// `print`, and decide the exit code.
[[nodiscard]] CommandResult WithGates(Json json,
                                      std::vector<eval::GateResult> gates,
                                      std::function<void()> print);

}  // namespace kvc::tools
