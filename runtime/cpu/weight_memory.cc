#include "runtime/cpu/weight_memory.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

namespace kvc::runtime {
namespace {

constexpr int64_t kLargePage = int64_t{2} << 20;
constexpr int64_t kAlignment = 64;
constexpr int64_t kReadBytes = int64_t{4} << 20;  // of a part

bool ReadAll(int file, int64_t offset, int64_t bytes, std::byte* target) {
  while (bytes > 0) {
    const ssize_t count =
        ::pread(file, target, static_cast<size_t>(bytes), static_cast<off_t>(offset));
    if (count <= 0) return false;
    offset += count;
    bytes -= count;
    target += count;
  }
  return true;
}

}  // namespace

WeightMemory::WeightMemory(int64_t bytes) {
  if (bytes <= 0) return;
  // Room to begin with a large page.
  const auto size = static_cast<size_t>(bytes + kLargePage);
  void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return;
  (void)::madvise(mapped, size, MADV_HUGEPAGE);  // small pages do as well, only slower
  memory_ = static_cast<std::byte*>(mapped);
  mapped_ = static_cast<int64_t>(size);
  const auto begin = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory_));
  next_ = (kLargePage - begin % kLargePage) % kLargePage;
}

WeightMemory::~WeightMemory() {
  if (memory_ != nullptr) ::munmap(memory_, static_cast<size_t>(mapped_));
}

WeightMemory::WeightMemory(WeightMemory&& other) noexcept { *this = std::move(other); }

WeightMemory& WeightMemory::operator=(WeightMemory&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(mapped_, other.mapped_);
  std::swap(next_, other.next_);
  return *this;
}

int64_t WeightMemory::PlaceBytes(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

const std::byte* WeightMemory::Add(const Tensor& first, int64_t bytes, ThreadPool& pool) {
  if (first.file == nullptr || bytes == 0 || next_ + PlaceBytes(bytes) > mapped_) return nullptr;
  std::byte* target = memory_ + next_;
  std::atomic<bool> whole = true;
  pool.ParallelFor((bytes + kReadBytes - 1) / kReadBytes, 1, [&](int64_t part, int64_t /*end*/) {
    const int64_t begin = part * kReadBytes;
    if (!ReadAll(first.file->descriptor(), first.offset + begin,
                 std::min(kReadBytes, bytes - begin), target + begin)) {
      whole = false;
    }
  });
  if (!whole) return nullptr;
  next_ += PlaceBytes(bytes);
  return target;
}

}  // namespace kvc::runtime
