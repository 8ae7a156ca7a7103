#pragma once
// Reads the JSON results that the commands wrote into a folder and lays them out as two tables:
// what each stage took, and what the compressed cache costs beside the full one.

#include <filesystem>
#include <string>

namespace kvc::report {

// Markdown. Uses DIR/*.json that hold a "command"; the name behind the last '-' of a file's stem
// ("needle-full.json") is the bundle that a result belongs to. Throws kBadInput when there is none.
[[nodiscard]] std::string ReportTables(const std::filesystem::path& directory);

}  // namespace kvc::report
