#pragma once
// The version of kvc, as the file VERSION has it.

#include <string_view>

namespace kvc {

[[nodiscard]] std::string_view Version();  // "0.1.0"

}  // namespace kvc
