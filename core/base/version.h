#pragma once
// The version of kvc, from the file VERSION.

#include <string_view>

namespace kvc {

[[nodiscard]] std::string_view Version();  // "0.2.0"

}  // namespace kvc
