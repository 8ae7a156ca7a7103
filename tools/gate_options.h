#pragma once
// The options that set limits for a measurement (eval/compare/quality_gates.h).

#include "eval/compare/quality_gates.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// Each function adds the options of its quantity.
void AddPerplexityGate(CLI::App& app, eval::QualityGates& gates);  // --max-ppl
// Adds --max-ppl-increase ("2%" or "0.02"), --max-kld, --min-same-top.
void AddDivergenceGates(CLI::App& app, eval::QualityGates& gates);
void AddNeedleGate(CLI::App& app, eval::QualityGates& gates);  // --min-needle
void AddScoreGate(CLI::App& app, eval::QualityGates& gates);   // --min-score

}  // namespace kvc::tools
