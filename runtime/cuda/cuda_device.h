#pragma once
// A CUDA device, or its emulator, whichever kernels/cuda library the program is linked with: its
// memory, and the one stream in which all of a backend's work runs in order.

#include <cstddef>
#include <cstdint>
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
// that uses it is still in the stream. All devices of a process take turns: whoever puts work into
// the stream, or waits for it, holds Lock().
class CudaDevice : public Device {
 public:
  // `threads`: of the host, for the emulator. Throws kDevice where there is no device.
  explicit CudaDevice(int threads);

  // "cuda" or "emulator".
  [[nodiscard]] std::string_view name() const override { return cuda::DeviceKind(); }
  void ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) override;
  void ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) override;
  void Copy(const Buffer& from,
            int64_t from_offset,
            const Buffer& to,
            int64_t to_offset,
            int64_t bytes) override;
  void Synchronize() override;
  // Waits, so that what was given back counts.
  [[nodiscard]] std::optional<int64_t> FreeBytes() override;
  [[nodiscard]] std::optional<int64_t> peak_bytes() const override {
    return static_cast<int64_t>(cuda::PeakBytes());
  }

  [[nodiscard]] cuda::StreamHandle stream() const { return stream_.handle(); }
  [[nodiscard]] std::unique_lock<std::recursive_mutex> Lock() const;
  // Copies a few bytes in the stream's order without waiting: the device keeps a copy until the
  // stream has been waited for.
  void Upload(std::span<const std::byte> bytes, void* to);
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
  int64_t waits_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> staged_;  // since the last wait
};

}  // namespace kvc::runtime
