#pragma once
// Which open file mapped bytes come from, so that writing them to another file can stay inside the
// kernel: half the processor time of writing from the mapping, whose pages must be mapped first.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace kvc {

struct MappedSource {
  int descriptor = -1;  // open while the MappedFile lives
  int64_t offset = 0;   // of the first byte in the file
};

// None for bytes that do not lie inside one living MappedFile (core/io/files.h). From any thread.
[[nodiscard]] std::optional<MappedSource> FindMappedSource(std::span<const std::byte> bytes);

}  // namespace kvc
