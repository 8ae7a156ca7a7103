#pragma once
// Memory of one device: its allocator, and buffers that know where they lie. There is no arithmetic
// here, and no way from a buffer to a pointer: only a backend's own folder has one
// (runtime/cpu/host_memory.h), so host logic cannot touch memory that may not be the host's.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kvc::runtime {

class Buffer;

// A device: its allocator, and copies within its memory and to and from the host. ToDevice and
// ToHost have ended when their call returns; what a Copy wrote is seen by everything that follows
// on the device. Offsets and sizes are in bytes; ranges must lie within their buffers.
// Safe to call from several threads for different buffers. All methods throw kIo or kDevice when
// the device fails.
class Device {
 public:
  virtual ~Device() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  virtual void ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) = 0;
  virtual void ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) = 0;
  // Copies between two ranges of buffers of this device that do not overlap.
  virtual void Copy(const Buffer& from,
                    int64_t from_offset,
                    const Buffer& to,
                    int64_t to_offset,
                    int64_t bytes) = 0;
  // Waits for everything that was begun.
  virtual void Synchronize() = 0;
  // Bytes of a device's own memory that can still be allocated; none for the host's memory.
  [[nodiscard]] virtual std::optional<int64_t> FreeBytes() { return std::nullopt; }
  // The most bytes of a device's own memory that kvc has held; none for the host's memory, whose
  // peak is the process'.
  [[nodiscard]] virtual std::optional<int64_t> peak_bytes() const { return std::nullopt; }

 private:
  friend class Buffer;
  // Returns uninitialised memory, aligned to 64 bytes; bytes > 0. Throws kIo when there is none
  // left.
  virtual void* Allocate(int64_t bytes) = 0;
  virtual void Free(void* memory, int64_t bytes) noexcept = 0;
};

// The sum of the live allocations of one sequence, and the highest it has been. Not safe for use
// by several threads at once.
class CacheMeter {
 public:
  CacheMeter() = default;
  // `peak` is what a clone inherits from the sequence that it continues.
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

// Uninitialised memory of a device. Move-only. Device and meter must outlive it.
class Buffer {
 public:
  Buffer() = default;
  // Zero bytes allocate nothing. `meter` counts the bytes; it is null if they are not a cache's.
  Buffer(int64_t bytes, Device& device, CacheMeter* meter);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  [[nodiscard]] int64_t bytes() const { return bytes_; }
  // Returns null for a buffer that was made without a device.
  [[nodiscard]] Device* device() const { return device_; }

 private:
  friend struct HostMemory;    // runtime/cpu/host_memory.h
  friend struct DeviceMemory;  // runtime/cuda/device_memory.h
  void Free();

  void* memory_ = nullptr;
  int64_t bytes_ = 0;
  Device* device_ = nullptr;
  CacheMeter* meter_ = nullptr;
};

}  // namespace kvc::runtime
