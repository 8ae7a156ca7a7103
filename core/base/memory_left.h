#pragma once
// Memory that a process may still take on this machine.

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvc {

// Bytes that can be taken without swapping: what the kernel calls available, or what the limit of
// the process' control group leaves, whichever is less. Null where the system says neither.
[[nodiscard]] std::optional<int64_t> MemoryLeft();

// The same from what the files say: `meminfo` is /proc/meminfo, `limit` and `used` are memory.max
// and memory.current of the group; empty texts say nothing.
[[nodiscard]] std::optional<int64_t> MemoryLeft(std::string_view meminfo,
                                                std::string_view limit,
                                                std::string_view used);

}  // namespace kvc
