#include "tools/export_output.h"

#include <cstdio>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "core/base/counted.h"
#include "core/base/sizes.h"
#include "export/budget/budget_plan.h"

namespace kvc::tools {
namespace {

std::string VerifiedText(const std::optional<double>& error) {
  return error ? fmt::format("max abs error {:.3g}", *error) : "not verified";
}

void PrintLines(const std::vector<choose::ComparisonLine>& lines, std::string_view chosen) {
  for (const choose::ComparisonLine& line : lines) {
    const eval::Divergence& divergence = line.text->divergence;
    std::printf("%-52s KLD %.4f  perplexity %.3f", line.name.c_str(), divergence.kld_mean,
                divergence.model.perplexity);
    if (line.needles) std::printf("  needles %.0f %%", 100.0 * line.needles->accuracy);
    std::printf("%s\n", line.name == chosen ? "  <- chosen" : "");
  }
}

}  // namespace

void PrintPlan(const bundle::ExportPlan& plan) {
  const budget::BudgetPlan& cache = plan.cache;
  std::printf("method %s, scorer %s, weights %s, cache %s\n",
              std::string(MethodName(cache.spec.method)).c_str(),
              ToString(cache.spec.scorer).c_str(),
              std::string(ShortName(plan.weights_dtype)).c_str(),
              std::string(RowFormatName(cache.spec.key_format)).c_str());
  std::printf("cache of %s: %s of %s (%.2f %%)\n", Counted(cache.reference_length, "token").c_str(),
              FormatBytes(cache.bytes.allocated).c_str(), FormatBytes(cache.bytes.full).c_str(),
              100.0 * plan.BudgetShare());
  std::printf("solver: objective %g, bound %g, gap %g\n", cache.solver.objective,
              cache.solver.bound, cache.solver.gap);
}

void PrintWritten(const bundle::ExportResult& written) {
  std::printf("%s: %s\n", written.bundle.c_str(), VerifiedText(written.max_abs_error).c_str());
}

void PrintCheck(const bundle::CheckResult& checked) {
  std::optional<double> error;
  if (checked.verification) error = checked.verification->max_abs_error;
  std::printf("%s: %s as recorded, %s\n", checked.bundle.c_str(),
              Counted(checked.files, "file").c_str(), VerifiedText(error).c_str());
}

void PrintChoice(const choose::Choice& choice) {
  if (!choice.screened.empty()) {
    std::printf("left out after a third of the windows:\n");
    PrintLines(choice.screened, "");
    std::printf("on all windows:\n");
  }
  PrintLines(choice.comparison.lines, choice.line);
}

}  // namespace kvc::tools
