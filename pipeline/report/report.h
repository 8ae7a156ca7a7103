#pragma once
// The two tables that sum results up: what each command took, and what the compressed cache costs
// beside the full one.

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/report/results.h"
#include "pipeline/report/table.h"

namespace kvc::report {

// The command, seconds and peak memory of each result; "-" where a file does not say.
[[nodiscard]] Table StageTable(const std::vector<Result>& results);

// Measures down, bundles across, every measured value in a cell of its own. The end of a result's
// name says which bundle it is of: results that share what follows the last '-' ("kld-lukv",
// "needle-lukv") share a column, as far as none of them measures the same; else their labels begin
// one '-' earlier. What kvc-eval kld found for its references stands under "full", where there are
// several under the label of one that was held against it.
[[nodiscard]] Table QualityTable(const std::vector<Result>& results);

// Both as Markdown, of the results in DIR/*.json. The same files give the same bytes. Throws as
// ReadResults does, and kBadInput when there is none.
[[nodiscard]] std::string ReportTables(const std::filesystem::path& directory);

}  // namespace kvc::report
