#include "tools/comparison_text.h"

#include <cstdio>

namespace kvc::tools {
namespace {

void PrintLine(const choose::ComparisonLine& line, const choose::Comparison& comparison) {
  std::printf("%-44s %-8s", line.name.c_str(), line.budget.c_str());
  if (line.text) {
    const eval::Divergence& divergence = line.text->divergence;
    const double perplexity = divergence.model.perplexity;
    const double against = comparison.lines[0].text->divergence.model.perplexity;
    std::printf(" %7.2f %% %8.4f %7.4f %8.4f %7.3f %8.3f (%+6.1f %%) %7.1f %%",
                100.0 * line.text->prompt_share, divergence.kld_mean, divergence.kld_stderr,
                divergence.kld_median, divergence.kld_p999, perplexity,
                100.0 * (perplexity / against - 1.0), 100.0 * divergence.same_top);
  }
  if (line.needles) {
    std::printf(" %4lld/%lld", static_cast<long long>(line.needles->found),
                static_cast<long long>(comparison.needles));
  }
  if (line.ruler) std::printf(" %6.1f %%", 100.0 * line.ruler->score);
  std::printf("\n");
}

}  // namespace

void PrintComparison(const choose::Comparison& comparison) {
  const choose::ComparisonLine& reference = comparison.lines[0];
  std::printf("%-44s %-8s", "policy", "budget");
  if (reference.text) {
    std::printf(" %9s %8s %7s %8s %7s %19s %9s", "bytes", "KLD", "+-", "median", "99.9 %",
                "perplexity", "same top");
  }
  if (reference.needles) std::printf(" needles");
  if (reference.ruler) std::printf("    ruler");
  std::printf("\n");
  for (const choose::ComparisonLine& line : comparison.lines) PrintLine(line, comparison);
  for (const choose::ImpossiblePolicy& policy : comparison.impossible) {
    std::printf("%-44s %-8s impossible: %s\n", policy.name.c_str(), policy.budget.c_str(),
                policy.reason.c_str());
  }
}

}  // namespace kvc::tools
