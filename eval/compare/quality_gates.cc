#include "eval/compare/quality_gates.h"

#include <algorithm>

namespace kvc::eval {
namespace {

enum class Side { kAtMost, kAtLeast };

// One kind of limit: its name, its bound, and the measurement that it is compared with.
struct Gate {
  const char* name;
  std::optional<double> limit;
  std::optional<double> value;
  Side side;
  const char* measured_by;
};

std::vector<Gate> GatesOf(const QualityGates& gates, const MeasuredQuality& measured) {
  std::optional<double> increase;
  if (measured.perplexity && measured.reference_perplexity) {
    increase = *measured.perplexity / *measured.reference_perplexity - 1.0;
  }
  constexpr const char* kWalk = "a walk through --text";
  return {
      {"max-ppl", gates.max_ppl, measured.perplexity, Side::kAtMost, kWalk},
      {"max-ppl-increase", gates.max_ppl_increase, increase, Side::kAtMost, kWalk},
      {"max-kld", gates.max_kld, measured.kld_mean, Side::kAtMost, kWalk},
      {"min-same-top", gates.min_same_top, measured.same_top, Side::kAtLeast, kWalk},
      {"min-needle", gates.min_needle, measured.needle_accuracy, Side::kAtLeast,
       "needles in a --haystack"},
      {"min-score", gates.min_score, measured.score, Side::kAtLeast, "tasks that have a score"},
  };
}

}  // namespace

void MeasuredQuality::Set(const Perplexity& measured) { perplexity = measured.perplexity; }

void MeasuredQuality::Set(const Divergence& divergence) {
  Set(divergence.model);
  if (divergence.reference.tokens > 0) reference_perplexity = divergence.reference.perplexity;
  kld_mean = divergence.kld_mean;
  same_top = divergence.same_top;
}

void MeasuredQuality::Set(const NeedleResult& needles) {
  if (!needles.cells.empty()) needle_accuracy = needles.accuracy;
}

void MeasuredQuality::Set(const TaskScores& tasks) {
  if (!tasks.cells.empty()) score = tasks.score;
}

std::vector<GateResult> CheckGates(const QualityGates& gates,
                                   const MeasuredQuality& measured,
                                   const std::string& line) {
  std::vector<GateResult> results;
  for (const Gate& gate : GatesOf(gates, measured)) {
    if (!gate.limit) continue;
    GateResult result{gate.name, *gate.limit, gate.value, false, line, ""};
    if (!gate.value) {
      result.reason = std::string("not measured: expected ") + gate.measured_by + ", got none";
    } else {
      // Written so that a NaN fails.
      result.passed =
          gate.side == Side::kAtMost ? *gate.value <= *gate.limit : *gate.value >= *gate.limit;
    }
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<GateResult> FailGates(const QualityGates& gates,
                                  const std::string& line,
                                  const std::string& reason) {
  std::vector<GateResult> results = CheckGates(gates, {}, line);
  for (GateResult& result : results) result.reason = "not measured: " + reason;
  return results;
}

bool AllPassed(std::span<const GateResult> results) {
  return std::ranges::all_of(results, &GateResult::passed);
}

}  // namespace kvc::eval
