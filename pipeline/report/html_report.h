#pragma once
// report.html: the results in a folder as one file that needs nothing else (no network, no
// scripts). It has the tables of pipeline/report/report.h, comparisons, scores of tasks, and charts
// of cache bytes against divergence, perplexity and needles, budgets of each head, ranks of each
// layer, spectra.

#include <filesystem>
#include <string>

namespace kvc::report {

// Returns the report. Reads DIR/*.json, or DIR/results/*.json if that folder exists, and the
// manifests of bundles: the folders in DIR, or beside it when DIR is called "results". The same
// files give the same bytes. Throws kBadInput when there is no result.
[[nodiscard]] std::string HtmlReport(const std::filesystem::path& directory);

// Tells whether a file is such a report, and so may be replaced by a newer one.
[[nodiscard]] bool IsReport(const std::filesystem::path& file);

}  // namespace kvc::report
