#pragma once
// Where a test finds committed data and what the build has made.

#include <filesystem>

namespace kvc::testing {

// The repository; ../shared lies beside it. The variable KVC_TEST_SOURCE names another folder.
[[nodiscard]] std::filesystem::path SourceRoot();
[[nodiscard]] std::filesystem::path BinaryRoot();  // the build folder: bin/, models/

}  // namespace kvc::testing
