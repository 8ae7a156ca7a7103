#pragma once
// The two tables that summarise results: what each command took, and what the compressed cache
// costs compared with the full one.

#include <filesystem>
#include <string>
#include <vector>

#include "pipeline/report/results.h"
#include "pipeline/report/table.h"

namespace kvc::report {

// Returns the command, seconds and peak memory of each result; "-" if a file does not say.
[[nodiscard]] Table StageTable(const std::vector<Result>& results);

// Returns measures as rows and bundles as columns, with every measured value in its own cell. The
// end of a result's name says which bundle it is of: results that share what follows the last '-'
// ("kld-lukv", "needle-lukv") share a column, unless two of them measure the same; then their
// labels begin one '-' earlier. What kvc-eval kld found for its references is listed under "full",
// if several references fall under the label of one that was compared with it.
[[nodiscard]] Table QualityTable(const std::vector<Result>& results);

// Returns both tables as Markdown, for the results in DIR/*.json. The same files give the same
// bytes. Throws like ReadResults, and kBadInput when there is none.
[[nodiscard]] std::string ReportTables(const std::filesystem::path& directory);

}  // namespace kvc::report
