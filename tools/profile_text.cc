#include "tools/profile_text.h"

#include <cstdio>

#include "core/base/counted.h"
#include "core/base/sizes.h"
#include "pipeline/profile_summary.h"

namespace kvc::tools {
namespace {

void PrintLosses(const pipeline::LossSummary& summary, bool with_ratio) {
  std::printf("%-20s", summary.name.c_str());
  for (size_t i = 0; i < summary.loss.size(); ++i) {
    std::printf("  %7.2f %%", 100.0 * summary.loss[i]);
    if (with_ratio && summary.ratio[i]) std::printf(" (%4.2fx)", *summary.ratio[i]);
  }
  std::printf("\n");
}

}  // namespace

void PrintProfilePlan(const profile::ProfilePlan& plan) {
  std::printf("windows       %lld, %s\n", static_cast<long long>(plan.windows),
              Counted(plan.tokens, "token").c_str());
  std::printf("hidden states %s, memory about %s beside the mapped weights",
              FormatBytes(plan.hidden_bytes).c_str(), FormatBytes(plan.memory_bytes).c_str());
  if (plan.ranks > 1) {
    std::printf(" on each of %lld ranks", static_cast<long long>(plan.ranks));
  }
  std::printf("\n");
}

void PrintProfile(const pipeline::ProfileResult& result, const profile::ProfileOptions& options) {
  PrintProfilePlan(result.plan);
  std::printf(
      "\nOracle importance lost when every head keeps 50 %%, 25 %%, 12.5 %% of its tokens,\n"
      "and times what the oracle's own choice loses:\n");
  const auto losses = pipeline::SummarizeLosses(result.data, options);
  for (const pipeline::LossSummary& loss : losses) PrintLosses(loss, &loss != &losses.back());
  const ProfileData& data = result.data;
  std::printf("\nHead importance: %s", data.importance_method.c_str());
  if (data.needle_tests > 0) {
    std::printf(", %lld of %lld needle questions answered",
                static_cast<long long>(data.needle_passed),
                static_cast<long long>(data.needle_tests));
  }
  std::printf("\n");
}

}  // namespace kvc::tools
