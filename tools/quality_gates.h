#pragma once
// Limits that a CI job sets for a measurement. A result that misses one is printed as usual, with
// "gate": "failed", and the exit code is that of failed verification (core/base/exit_code.h).

#include <optional>
#include <string>

#include "core/io/json_fwd.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct QualityGates {
  std::string max_ppl_increase;  // "2%" or "0.02": over the reference's perplexity
  std::optional<double> max_ppl, max_kld, min_same_top, min_needle, min_score;
};

// Each adds the options of its quantity.
void AddPerplexityGate(CLI::App& app, QualityGates& gates);   // --max-ppl
void AddDivergenceGates(CLI::App& app, QualityGates& gates);  // --max-ppl-increase, --max-kld,
                                                              // --min-same-top
void AddNeedleGate(CLI::App& app, QualityGates& gates);       // --min-needle
void AddScoreGate(CLI::App& app, QualityGates& gates);        // --min-score

// Checks the limits that were set against `measured`: "perplexity", "perplexity_against" (or
// `reference` instead of it), "kld_mean", "same_top", "needle_accuracy" or "accuracy",
// "ruler_score" or "score". Adds to `result`, when a limit was set, "gate": "passed" or "failed"
// (failed stays failed) and to the array "gates" {name, limit, value, passed} and `line` when it is
// not empty. A NaN fails. Throws kUsage for an increase that does not parse.
void ApplyGates(const QualityGates& gates,
                const Json& measured,
                std::optional<double> reference,
                const std::string& line,
                Json& result);
// One line for each gate of a result; nothing without any.
void PrintGates(const Json& result);

}  // namespace kvc::tools
