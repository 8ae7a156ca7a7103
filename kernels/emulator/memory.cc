#include "kernels/emulator/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>

#include <sys/mman.h>

#include "core/base/error.h"
#include "kernels/emulator/address_range.h"

namespace kvc::emulator {
namespace {

constexpr size_t kRangeBytes = size_t{1} << 38;
constexpr size_t kPageBytes = 4096;

struct Memory {
  std::mutex mutex;
  std::byte* range = nullptr;
  AddressRange addresses{kRangeBytes};
  std::map<const std::byte*, Allocation> allocations;
  MemoryUse use = {0, 0, size_t{16} << 30};
};

// Lives as long as the process: streams of static duration may free late.
Memory& GetMemory() {
  static Memory& memory = *new Memory;
  return memory;
}

void MapRange(Memory& memory) {
  void* range = mmap(nullptr, kRangeBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  KVC_CHECK(range != MAP_FAILED, kDevice,
            "emulated device: expected {} bytes of address space, got none", kRangeBytes);
  memory.range = static_cast<std::byte*>(range);
}

}  // namespace

void* Allocate(size_t bytes) {
  Memory& memory = GetMemory();
  const std::lock_guard lock(memory.mutex);
  if (memory.range == nullptr) {
    MapRange(memory);
  }
  const size_t left = memory.use.limit - std::min(memory.use.limit, memory.use.used);
  const std::optional<size_t> place = bytes <= left ? memory.addresses.Take(bytes) : std::nullopt;
  KVC_CHECK(place, kDevice, "emulated device: expected {} free bytes, got {} of {}", bytes, left,
            memory.use.limit);
  std::byte* begin = memory.range + *place;
  std::memset(begin, 0xff, bytes);
  memory.allocations[begin] = {begin, bytes, nullptr};
  memory.use.used += bytes;
  memory.use.peak = std::max(memory.use.peak, memory.use.used);
  return begin;
}

void Free(void* address) {
  if (address == nullptr) {
    return;
  }
  Memory& memory = GetMemory();
  const std::lock_guard lock(memory.mutex);
  const auto found = memory.allocations.find(static_cast<std::byte*>(address));
  KVC_CHECK(found != memory.allocations.end(), kInternal,
            "emulated device: expected the address of an allocation, got another");
  const Allocation allocation = found->second;
  std::free(allocation.shadow);
  memory.use.used -= allocation.bytes;
  memory.allocations.erase(found);
  const auto offset = static_cast<size_t>(allocation.begin - memory.range);
  memory.addresses.Give(offset);
  // Whole pages go back to the system; the range begins with one.
  const size_t first = (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
  const size_t end = (offset + allocation.bytes) / kPageBytes * kPageBytes;
  if (first < end) madvise(memory.range + first, end - first, MADV_DONTNEED);
}

MemoryUse GetMemoryUse() {
  Memory& memory = GetMemory();
  const std::lock_guard lock(memory.mutex);
  return memory.use;
}

void ResetPeak() {
  Memory& memory = GetMemory();
  const std::lock_guard lock(memory.mutex);
  memory.use.peak = memory.use.used;
}

void SetMemoryLimit(size_t bytes) {
  Memory& memory = GetMemory();
  const std::lock_guard lock(memory.mutex);
  memory.use.limit = bytes;
}

bool InDeviceRange(const void* address) {
  const Memory& memory = GetMemory();
  const auto* byte = static_cast<const std::byte*>(address);
  return memory.range != nullptr && byte >= memory.range && byte < memory.range + kRangeBytes;
}

Allocation* FindAllocation(const void* address, size_t bytes) {
  Memory& memory = GetMemory();
  const auto* byte = static_cast<const std::byte*>(address);
  const std::lock_guard lock(memory.mutex);
  auto next = memory.allocations.upper_bound(byte);
  if (next == memory.allocations.begin()) {
    return nullptr;
  }
  Allocation& allocation = std::prev(next)->second;
  return byte + bytes <= allocation.begin + allocation.bytes ? &allocation : nullptr;
}

void* ShadowOf(Allocation& allocation, size_t bytes_per_pair) {
  if (allocation.shadow == nullptr) {
    allocation.shadow = std::calloc((allocation.bytes + 1) / 2, bytes_per_pair);
    KVC_CHECK(allocation.shadow != nullptr, kDevice,
              "checker: expected a shadow for {} bytes, got no memory", allocation.bytes);
  }
  return allocation.shadow;
}

}  // namespace kvc::emulator
