#include "tools/gate_options.h"

#include <cmath>
#include <limits>
#include <string>

#include <CLI/CLI.hpp>

namespace kvc::tools {
namespace {

// Parses "2%" or "0.02"; "200%" is possible: a perplexity may triple. Returns NaN for other text.
double ParseIncrease(const std::string& text) {
  const bool percent = text.ends_with('%');
  size_t used = 0;
  double value = std::numeric_limits<double>::quiet_NaN();
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used + (percent ? 1 : 0) != text.size() || !std::isfinite(value)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return percent ? value / 100.0 : value;
}

}  // namespace

void AddPerplexityGate(CLI::App& app, eval::QualityGates& gates) {
  app.add_option("--max-ppl", gates.max_ppl, "Exit code 5 above this perplexity");
}

void AddDivergenceGates(CLI::App& app, eval::QualityGates& gates) {
  app.add_option_function<std::string>(
         "--max-ppl-increase",
         [&gates](const std::string& text) { gates.max_ppl_increase = ParseIncrease(text); },
         "Exit code 5 when perplexity is more than this above the reference's: 2%")
      ->check([](const std::string& text) {
        if (!std::isnan(ParseIncrease(text))) return std::string();
        return "--max-ppl-increase: expected a share such as 2% or 0.02, got \"" + text + "\"";
      });
  app.add_option("--max-kld", gates.max_kld, "Exit code 5 above this mean divergence, nats");
  app.add_option("--min-same-top", gates.min_same_top,
                 "Exit code 5 below this share of equal most probable tokens");
}

void AddNeedleGate(CLI::App& app, eval::QualityGates& gates) {
  app.add_option("--min-needle", gates.min_needle, "Exit code 5 below this needle accuracy: 0.99");
}

void AddScoreGate(CLI::App& app, eval::QualityGates& gates) {
  app.add_option("--min-score", gates.min_score, "Exit code 5 below this mean score, 0 to 1");
}

}  // namespace kvc::tools
