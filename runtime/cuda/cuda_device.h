#pragma once
// A CUDA device, or its emulator, whichever kernels/cuda library the program is linked with: its
// memory, and the one stream in which all of a backend's work runs in order.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "runtime/device.h"

namespace kvc::runtime {

// Memory is taken and given back in the stream's order, so a buffer may be destroyed while work
// that uses it is still in the stream. All other memory that work names, the host's and that of
// DeviceBuffer, must wait for the stream before it goes: DeviceTurn sees to it where a call fails,
// Drain in destructors. All devices of a process take turns: whoever puts work into the stream, or
// waits for it, holds Lock().
class CudaDevice : public Device {
 public:
  // `threads`: of the host, for the emulator. Throws kDevice where there is no device.
  explicit CudaDevice(int threads);
  ~CudaDevice() override { Drain(); }
  CudaDevice(CudaDevice&&) = delete;

  // "cuda" or "emulator".
  [[nodiscard]] std::string_view name() const override { return cuda::DeviceKind(); }
  void ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) override;
  void ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) override;
  void Copy(const Buffer& from,
            int64_t from_offset,
            const Buffer& to,
            int64_t to_offset,
            int64_t bytes) override;
  // Throws kNumeric where kernels have counted faults since the last wait.
  void Synchronize() override;
  // Waits, so that what was given back counts.
  [[nodiscard]] std::optional<int64_t> FreeBytes() override;
  [[nodiscard]] std::optional<int64_t> peak_bytes() const override {
    return static_cast<int64_t>(cuda::PeakBytes());
  }

  // Waits until nothing is in the stream; what fails there is nobody's any more.
  void Drain() noexcept;

  [[nodiscard]] cuda::StreamHandle stream() const { return stream_.handle(); }
  [[nodiscard]] std::unique_lock<std::recursive_mutex> Lock() const;
  // Copies a few bytes in the stream's order without waiting: the device keeps a copy until the
  // stream has been waited for.
  void Upload(std::span<const std::byte> bytes, void* to);
  // The place on the device where kernels count numbers that no code stands for (move_rows.h), the
  // same for all calls.
  [[nodiscard]] int32_t* faults();
  // What `body` puts into the stream, as a graph; nothing of it runs.
  [[nodiscard]] cuda::Graph Capture(const std::function<void()>& body);
  // Times that the host has waited for the stream.
  [[nodiscard]] int64_t waits() const { return waits_; }
  // Blocks of a launch that fill the device with two on each multiprocessor.
  [[nodiscard]] int32_t blocks() const { return 2 * info_.multiprocessors; }

 private:
  void* Allocate(int64_t bytes) override;
  void Free(void* memory, int64_t bytes) noexcept override;

  cuda::DeviceInfo info_;
  cuda::Stream stream_;
  cuda::DeviceBuffer faults_;  // an int32_t, zero but for faults; none before it is asked for
  int32_t found_ = 0;          // faults, as a wait reads them
  int64_t waits_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> staged_;  // since the last wait
};

// A call that puts work into a device's stream. It holds the lock; where an exception leaves its
// scope, it waits for the stream. So declare it behind the memory of the host that the work writes:
// when that goes, the work has been done.
class DeviceTurn {
 public:
  explicit DeviceTurn(CudaDevice& device)
      : device_(device), lock_(device.Lock()), exceptions_(std::uncaught_exceptions()) {}
  ~DeviceTurn() {
    if (std::uncaught_exceptions() > exceptions_) device_.Drain();
  }
  DeviceTurn(DeviceTurn&&) = delete;

 private:
  CudaDevice& device_;
  std::unique_lock<std::recursive_mutex> lock_;
  int exceptions_;
};

}  // namespace kvc::runtime
