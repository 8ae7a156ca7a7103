#pragma once
// All measured values of a run as one list, so that two runs can be laid side by side.

#include <string>
#include <vector>

#include "pipeline/report/run.h"

namespace kvc::report {

struct Measure {
  std::string of;    // the bundle's label, or a comparison's line: "compare: lukv at 25%"
  std::string name;  // what was measured
  double value = 0.0;
  enum class Better { kLower, kHigher } better = Better::kLower;
  bool share = false;  // shown in percent; a difference is in points
  double error = 0.0;  // standard error; NaN where it is not known
};

// Returns the values in the order of the results; `of` and `name` together are unique.
[[nodiscard]] std::vector<Measure> MeasuresOf(const Run& run);

}  // namespace kvc::report
