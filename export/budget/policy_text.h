#pragma once
// Policies as text: what kvc-eval compare and kvc-export --method auto take and report.

#include <string>

#include "export/budget/budget_plan.h"

namespace kvc::budget {

// A policy under the text that it was asked for with, which results name it by.
struct NamedPolicy {
  std::string name;
  Policy policy;
};

// METHOD[/SCORER[/LOSS]][@[prompt:]TIERS[+RECENT]]: `lukv/snapkv/output-error`,
// `uniform@0,1/8,1/4,1`, `uniform/snapkv@prompt:0,1/4,1` (bases found in each prompt),
// `lukv-mixed@1x8,1x4,1x2+x4` (recent rows in 4 bits, as --recent). What the text leaves out is as
// in a new Policy. Throws kUsage.
[[nodiscard]] NamedPolicy ParsePolicy(const std::string& text);

}  // namespace kvc::budget
