#pragma once
// The emulated device's memory: a range of addresses of its own, with gaps between allocations.
// Addresses are used again only when 256 GiB of them have been used up, so that a pointer to what
// was freed stays wrong for long. Fresh memory is NaN.

#include <cstddef>
#include <cstdint>

namespace kvc::emulator {

// Throws kDevice, need and have named, where the limit would be passed.
void* Allocate(size_t bytes);
// null is ignored.
void Free(void* memory);

struct MemoryUse {
  size_t used = 0;
  size_t peak = 0;  // since the last ResetPeak
  size_t limit = 0;
};
[[nodiscard]] MemoryUse GetMemoryUse();
void ResetPeak();
void SetMemoryLimit(size_t bytes);

// One allocation, and what the checker keeps beside it.
struct Allocation {
  std::byte* begin = nullptr;
  size_t bytes = 0;
  void* shadow = nullptr;  // zeroed, `shadow_bytes_per_pair` for each two bytes; made on first use
};
[[nodiscard]] bool InDeviceRange(const void* address);
// The allocation that holds all bytes, or null.
[[nodiscard]] Allocation* FindAllocation(const void* address, size_t bytes);
// Its shadow, allocated lazily with calloc so that what is never touched costs nothing.
[[nodiscard]] void* ShadowOf(Allocation& allocation, size_t bytes_per_pair);

}  // namespace kvc::emulator
