#include "tools/results_text.h"

#include <cstdio>
#include <string>
#include <utility>

#include "core/base/sizes.h"
#include "eval/compare/results_json.h"

namespace kvc::tools {
namespace {

// Prints one line for each gate.
void PrintGates(const std::vector<eval::GateResult>& gates) {
  for (const eval::GateResult& gate : gates) {
    const std::string line = gate.line.empty() ? "" : " (" + gate.line + ")";
    std::printf("gate        %s %s: ", gate.name.c_str(), gate.passed ? "passed" : "FAILED");
    if (gate.value) {
      std::printf("%.5g, limit %.5g%s\n", *gate.value, gate.limit, line.c_str());
    } else {
      std::printf("limit %.5g%s, %s\n", gate.limit, line.c_str(), gate.reason.c_str());
    }
  }
}

}  // namespace

void PrintCache(const runtime::CacheCounters& cache) {
  std::printf("cache       %s of %s (allocated %s, peak %s)\n",
              FormatBytes(cache.logical_bytes).c_str(), FormatBytes(cache.full_bytes).c_str(),
              FormatBytes(cache.allocated_bytes).c_str(), FormatBytes(cache.peak_bytes).c_str());
}

CommandResult WithGates(Json json,
                        std::vector<eval::GateResult> gates,
                        std::function<void()> print) {
  CommandResult result{std::move(json), {}, eval::AllPassed(gates)};
  eval::AddGates(gates, result.json);
  result.print = [gates = std::move(gates), print = std::move(print)] {
    print();
    PrintGates(gates);
  };
  return result;
}

}  // namespace kvc::tools
