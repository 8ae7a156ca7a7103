#pragma once
// Memory of one sequence's cache, counted where it is allocated: the counters that kvc prints are
// measured, not predicted.

#include <cstddef>
#include <cstdint>

namespace kvc::runtime {

// Sum of the live allocations of one sequence, and the highest it has been.
class CacheMeter {
 public:
  CacheMeter() = default;
  // `peak`: what a clone inherits from the sequence that it continues.
  explicit CacheMeter(int64_t peak) : peak_bytes_(peak) {}
  CacheMeter(const CacheMeter&) = delete;
  CacheMeter& operator=(const CacheMeter&) = delete;

  void Add(int64_t bytes) {
    live_bytes_ += bytes;
    if (live_bytes_ > peak_bytes_) peak_bytes_ = live_bytes_;
  }
  void Subtract(int64_t bytes) { live_bytes_ -= bytes; }
  [[nodiscard]] int64_t live_bytes() const { return live_bytes_; }
  [[nodiscard]] int64_t peak_bytes() const { return peak_bytes_; }

 private:
  int64_t live_bytes_ = 0;
  int64_t peak_bytes_ = 0;
};

// Uninitialised memory, aligned to a cache line. Move-only. The meter must outlive it.
class CacheBuffer {
 public:
  CacheBuffer() = default;
  // Throws kIo when the system has no memory left. No bytes: no allocation.
  CacheBuffer(int64_t bytes, CacheMeter& meter);
  ~CacheBuffer();
  CacheBuffer(CacheBuffer&& other) noexcept;
  CacheBuffer& operator=(CacheBuffer&& other) noexcept;

  [[nodiscard]] int64_t bytes() const { return bytes_; }
  [[nodiscard]] std::byte* data() const { return data_; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void Free();

  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  CacheMeter* meter_ = nullptr;  // outlives the buffer
};

}  // namespace kvc::runtime
