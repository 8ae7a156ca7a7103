#include "tools/quality_gates.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/json.h"

namespace kvc::tools {
namespace {

enum class Side { kAtMost, kAtLeast };

double Number(const Json& measured, const char* key) {
  return measured.contains(key) && measured[key].is_number()
             ? measured[key].get<double>()
             : std::numeric_limits<double>::quiet_NaN();
}

class Checker {
 public:
  Checker(const std::string& line, Json& result) : line_(line), result_(result) {}

  void Check(const char* name, std::optional<double> limit, double value, Side side) {
    if (!limit) return;
    // Written so that a NaN fails.
    const bool passed = side == Side::kAtMost ? value <= *limit : value >= *limit;
    Json gate = {{"name", name}, {"limit", *limit}, {"value", value}, {"passed", passed}};
    if (!line_.empty()) gate["line"] = line_;
    if (!result_.contains("gates")) result_["gates"] = Json::array();
    result_["gates"].push_back(std::move(gate));
    const bool failed_before = result_.value("gate", "passed") == "failed";
    result_["gate"] = passed && !failed_before ? "passed" : "failed";
  }

 private:
  const std::string& line_;
  Json& result_;
};

// "200%" is possible: a perplexity may triple.
double ParseIncrease(const std::string& text) {
  const bool percent = text.ends_with('%');
  size_t used = 0;
  double value = std::numeric_limits<double>::quiet_NaN();
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  KVC_CHECK(used > 0 && used + (percent ? 1 : 0) == text.size() && std::isfinite(value), kUsage,
            "--max-ppl-increase: expected a share such as 2% or 0.02, got \"{}\"", text);
  return percent ? value / 100.0 : value;
}

}  // namespace

void AddPerplexityGate(CLI::App& app, QualityGates& gates) {
  app.add_option("--max-ppl", gates.max_ppl, "Exit code 5 above this perplexity");
}

void AddDivergenceGates(CLI::App& app, QualityGates& gates) {
  app.add_option("--max-ppl-increase", gates.max_ppl_increase,
                 "Exit code 5 when perplexity is more than this above the reference's: 2%")
      ->check([](const std::string& text) {
        // Before anything is measured.
        try {
          (void)ParseIncrease(text);
        } catch (const Error& error) {
          return std::string(error.what());
        }
        return std::string();
      });
  app.add_option("--max-kld", gates.max_kld, "Exit code 5 above this mean divergence, nats");
  app.add_option("--min-same-top", gates.min_same_top,
                 "Exit code 5 below this share of equal most probable tokens");
}

void AddNeedleGate(CLI::App& app, QualityGates& gates) {
  app.add_option("--min-needle", gates.min_needle, "Exit code 5 below this needle accuracy: 0.99");
}

void AddScoreGate(CLI::App& app, QualityGates& gates) {
  app.add_option("--min-score", gates.min_score, "Exit code 5 below this mean score, 0 to 1");
}

void ApplyGates(const QualityGates& gates,
                const Json& measured,
                std::optional<double> reference,
                const std::string& line,
                Json& result) {
  Checker checker(line, result);
  const double perplexity = Number(measured, "perplexity");
  checker.Check("max-ppl", gates.max_ppl, perplexity, Side::kAtMost);
  if (!gates.max_ppl_increase.empty()) {
    const double against = reference.value_or(Number(measured, "perplexity_against"));
    checker.Check("max-ppl-increase", ParseIncrease(gates.max_ppl_increase),
                  perplexity / against - 1.0, Side::kAtMost);
  }
  checker.Check("max-kld", gates.max_kld, Number(measured, "kld_mean"), Side::kAtMost);
  checker.Check("min-same-top", gates.min_same_top, Number(measured, "same_top"), Side::kAtLeast);
  const char* needle = measured.contains("needle_accuracy") ? "needle_accuracy" : "accuracy";
  checker.Check("min-needle", gates.min_needle, Number(measured, needle), Side::kAtLeast);
  const char* score = measured.contains("ruler_score") ? "ruler_score" : "score";
  checker.Check("min-score", gates.min_score, Number(measured, score), Side::kAtLeast);
}

void PrintGates(const Json& result) {
  if (!result.contains("gates")) return;
  for (const Json& gate : result["gates"]) {
    const double value = gate["value"].is_number() ? gate["value"].get<double>() : std::nan("");
    std::printf(
        "gate        %s %s: %.5g, limit %.5g%s\n", gate["name"].get<std::string>().c_str(),
        gate["passed"].get<bool>() ? "passed" : "FAILED", value, gate["limit"].get<double>(),
        gate.contains("line") ? (" (" + gate["line"].get<std::string>() + ")").c_str() : "");
  }
}

}  // namespace kvc::tools
