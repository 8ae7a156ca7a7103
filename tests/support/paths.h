#pragma once
// Where a test finds committed data and what the build has made.

#include <filesystem>

namespace kvc::testing {

[[nodiscard]] std::filesystem::path SourceRoot();  // the repository; ../shared lies beside it
[[nodiscard]] std::filesystem::path BinaryRoot();  // the build folder: bin/, models/

}  // namespace kvc::testing
