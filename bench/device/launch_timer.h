#pragma once
// Times of launches on a device, each begun with nothing in its last cache, and the rate of a copy
// in its memory, to which the speed of everything bound by memory is compared.

#include <cstdint>
#include <functional>

#include "bench/support/repeat.h"
#include "kernels/cuda/runtime.h"

namespace kvc::bench {

class LaunchTimer {
 public:
  // Opens the device. `threads`: of the host, for an emulator's blocks. Throws kDevice.
  explicit LaunchTimer(int threads);

  [[nodiscard]] const cuda::DeviceInfo& device() const { return device_; }
  [[nodiscard]] cuda::StreamHandle stream() const { return stream_.handle(); }
  // Bytes that are written before each launch: twice the cache.
  [[nodiscard]] int64_t flushed_bytes() const { return static_cast<int64_t>(flush_.bytes()); }

  // Seconds of what `launch` puts into the stream, as the device's events measure them, after one
  // run that counts for nothing. On the emulator they are the host's, and say nothing about a
  // device.
  [[nodiscard]] Times Measure(int64_t repetitions, const std::function<void()>& launch);
  // Bytes read and written in a second by the best of some copies of a large buffer.
  [[nodiscard]] double CopyRate();

 private:
  cuda::DeviceInfo device_;
  cuda::Stream stream_;
  cuda::DeviceBuffer flush_;
};

}  // namespace kvc::bench
