#include "pipeline/report/html_report.h"

#include <array>

#include "core/io/files.h"
#include "pipeline/report/differences.h"
#include "pipeline/report/page.h"
#include "pipeline/report/report.h"
#include "pipeline/report/run.h"
#include "pipeline/report/sections.h"
#include "pipeline/report/verdict.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

void AddSections(std::span<const Run> runs, Page& page) {
  AddComparisons(runs, page);
  AddDivergences(runs, page);
  AddNeedlesAndTasks(runs, page);
  AddSpeedAndMemory(runs, page);
  AddBudgets(runs, page);
  AddProfiles(runs, page);
  AddThinKeys(runs, page);
  AddGates(runs, page);
}

}  // namespace

std::string HtmlReport(const fs::path& directory) {
  const std::array runs = {ReadRun(directory, "")};
  const Run& run = runs[0];
  Page page("kvc report: " + run.name, {});
  const Verdict verdict = VerdictOf(run);
  page.AddVerdict(verdict.sentence, verdict.tiles);
  AddSections(runs, page);
  page.AddHeading("All values");
  page.AddTable(QualityTable(run.results));
  page.AddHeading("What it took");
  page.AddTable(StageTable(run.results));
  return page.ToHtml();
}

std::string HtmlComparison(const fs::path& a, const fs::path& b) {
  const std::array runs = {ReadRun(a, "A"), ReadRun(b, "B")};
  Page page("kvc report: " + runs[0].name + " and " + runs[1].name,
            {"A is " + runs[0].name + ".", "B is " + runs[1].name + "; its lines are dashed."});
  const std::vector<AtSize> sizes = CompareSizes(runs[0], runs[1]);
  page.AddVerdict(SentenceOf(sizes), {});
  page.AddTable(SizeTable(sizes));
  for (const Run& run : runs) page.AddParagraph(NameIn(run, VerdictOf(run).sentence));
  AddSections(runs, page);
  page.AddHeading("Differences");
  page.AddTable(DifferenceTable(runs[0], runs[1]));
  return page.ToHtml();
}

std::string ComparisonTables(const fs::path& a, const fs::path& b) {
  const Run in_a = ReadRun(a, "A");
  const Run in_b = ReadRun(b, "B");
  const std::vector<AtSize> sizes = CompareSizes(in_a, in_b);
  const std::string table = ToMarkdown(SizeTable(sizes));
  return SentenceOf(sizes) + "\n\n" + (table.empty() ? "" : table + "\n") +
         ToMarkdown(DifferenceTable(in_a, in_b));
}

bool IsReport(const fs::path& file) {
  if (!fs::is_regular_file(file)) return false;
  constexpr size_t kTitleBefore = 1024;  // bytes
  return ReadFile(file).find("<title>kvc report</title>") < kTitleBefore;
}

}  // namespace kvc::report
