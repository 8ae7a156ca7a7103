#pragma once
// Two runs side by side: which is better at which bytes, and every value that both or one measured.

#include <string>
#include <vector>

#include "pipeline/report/run.h"
#include "pipeline/report/table.h"

namespace kvc::report {

// The least divergence that each of two runs reaches with at most `share` of the full cache's
// bytes.
struct AtSize {
  std::string where;  // the comparison, or "bundles"
  double share = 0.0;
  JudgedCache a, b;
  enum class Better { kNeither, kA, kB } better = Better::kNeither;
  bool same_text = true;  // both saw the same perplexity of the full cache
};

// Returns the sizes at which both runs have a cache, ascending: for comparisons of the same name,
// and for the bundles that kvc-eval kld compared. Sizes within 2 % of each other are one,
// and so are those at which both have the same best cache. Neither
// is better when the divergences differ by at most two standard errors of their difference.
[[nodiscard]] std::vector<AtSize> CompareSizes(const Run& a, const Run& b);

[[nodiscard]] std::string SentenceOf(const std::vector<AtSize>& sizes);
[[nodiscard]] Table SizeTable(const std::vector<AtSize>& sizes);
// Returns one row for each value; the last two columns are the difference and what is better.
[[nodiscard]] Table DifferenceTable(const Run& a, const Run& b);

}  // namespace kvc::report
