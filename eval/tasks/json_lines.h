#pragma once
// Files with one JSON object on each line.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::eval {

// Returns the objects with their places ("FILE: line 3"), empty lines left out. Throws kIo,
// kBadInput for a line that is no object or a file without any.
[[nodiscard]] std::vector<std::pair<std::string, Json>> ReadJsonLines(
    const std::filesystem::path& file);

}  // namespace kvc::eval
