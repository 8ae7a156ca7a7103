#pragma once
// Runs another program: how `kvc run` starts the commands of its stages.

#include <filesystem>
#include <string>
#include <vector>

namespace kvc::recipe {

// Runs argv[0] (a path) with stdin empty, stdout into `output` and this process's stderr; waits.
// Returns its exit code, 128 + N when signal N ended it. Throws kIo when it cannot be started.
[[nodiscard]] int RunChild(const std::vector<std::string>& argv,
                           const std::filesystem::path& output);

// The folder of the running program.
[[nodiscard]] std::filesystem::path ProgramFolder();

}  // namespace kvc::recipe
