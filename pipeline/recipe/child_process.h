#pragma once
// Runs another program. `kvc run` starts the commands of its stages this way.

#include <filesystem>
#include <string>
#include <vector>

namespace kvc::recipe {

// Tells whether RunChild can start `program`: a path, or a name that is looked up on the PATH.
[[nodiscard]] bool IsProgram(const std::string& program);

// Runs argv[0] (see IsProgram) with empty stdin, stdout into `output` and this process's stderr,
// and waits. Returns its exit code, or 128 + N when signal N ended it. Throws kIo when it cannot be
// started.
[[nodiscard]] int RunChild(const std::vector<std::string>& argv,
                           const std::filesystem::path& output);

// Returns the folder of the running program.
[[nodiscard]] std::filesystem::path ProgramFolder();

}  // namespace kvc::recipe
