#pragma once
// Limits that a measurement must keep, as a CI job sets them. A quantity that was not measured
// fails its limit.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/walk.h"

namespace kvc::eval {

struct QualityGates {
  std::optional<double> max_ppl;
  std::optional<double> max_ppl_increase;  // a share: over the reference's perplexity
  std::optional<double> max_kld;           // mean, nats
  std::optional<double> min_same_top;      // share of equal most probable tokens
  std::optional<double> min_needle;        // share of the needles found
  std::optional<double> min_score;         // mean over the cells of tasks
};

// The quantities that gates limit; none: not measured.
struct MeasuredQuality {
  std::optional<double> perplexity;
  std::optional<double> reference_perplexity;
  std::optional<double> kld_mean;
  std::optional<double> same_top;
  std::optional<double> needle_accuracy;
  std::optional<double> score;

  // Each overload sets what the measurement tells. Needles and tasks without any prompt set
  // nothing.
  void Set(const Perplexity& perplexity);
  void Set(const Divergence& divergence);  // with the reference's perplexity if it is known
  void Set(const NeedleResult& needles);
  void Set(const TaskScores& tasks);
};

// A limit and whether it was kept.
struct GateResult {
  std::string name;  // "max-ppl", "max-ppl-increase", "max-kld", ...
  double limit = 0.0;
  std::optional<double> value;  // none: not measured, which fails
  bool passed = false;
  std::string line;    // the name of what was measured, where there are several
  std::string reason;  // why there is no value
};

// Returns one result for each limit that is set, in the order of QualityGates. A NaN fails.
[[nodiscard]] std::vector<GateResult> CheckGates(const QualityGates& gates,
                                                 const MeasuredQuality& measured,
                                                 const std::string& line = "");
// Does the same for one measurement.
template <class Measurement>
[[nodiscard]] std::vector<GateResult> CheckMeasurement(const QualityGates& gates,
                                                       const Measurement& measurement) {
  MeasuredQuality measured;
  measured.Set(measurement);
  return CheckGates(gates, measured);
}
// Returns failed results for a run that was not possible, with `reason`.
[[nodiscard]] std::vector<GateResult> FailGates(const QualityGates& gates,
                                                const std::string& line,
                                                const std::string& reason);
[[nodiscard]] bool AllPassed(std::span<const GateResult> results);

}  // namespace kvc::eval
