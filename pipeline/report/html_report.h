#pragma once
// report.html: one run, or two side by side, as one file that needs nothing else (no network; its
// scripts are in it). It begins with a verdict; charts, heat maps and tables follow.

#include <filesystem>
#include <string>

namespace kvc::report {

// Returns the report of a folder, which is read as ReadRun says. The same files give the same
// bytes: the date that the page shows is the file's own. Throws like ReadRun.
[[nodiscard]] std::string HtmlReport(const std::filesystem::path& directory);

// Returns the report of two folders: the same charts with the lines of both, the second ones
// dashed, which is better at which bytes, and a table of differences. Throws like ReadRun.
[[nodiscard]] std::string HtmlComparison(const std::filesystem::path& a,
                                         const std::filesystem::path& b);
// Returns the verdict and both tables of such a comparison as Markdown. Throws like ReadRun.
[[nodiscard]] std::string ComparisonTables(const std::filesystem::path& a,
                                           const std::filesystem::path& b);

// Tells whether a file is such a report, and so may be replaced by a newer one.
[[nodiscard]] bool IsReport(const std::filesystem::path& file);

}  // namespace kvc::report
