#pragma once
// Arrays on the device for tests.

#include <vector>

#include "kernels/cuda/runtime.h"

#if !defined(KVC_TEST_DEVICE)
#include "kernels/emulator/emulator.h"
#endif

namespace kvc::cuda {

// A copy of host values, or room for some; Host() waits for the default stream.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values)
      : size_(values.size()), buffer_(values.size() * sizeof(T)) {
    CopyToDevice(buffer_.data(), values.data(), values.size() * sizeof(T), nullptr);
    Synchronize(nullptr);
  }
  explicit DeviceArray(size_t size) : size_(size), buffer_(size * sizeof(T)) {}

  [[nodiscard]] T* data() const { return static_cast<T*>(buffer_.data()); }
  [[nodiscard]] std::vector<T> Host() const {
    std::vector<T> values(size_);
    CopyToHost(values.data(), buffer_.data(), size_ * sizeof(T), nullptr);
    Synchronize(nullptr);
    return values;
  }

 private:
  size_t size_;
  DeviceBuffer buffer_;
};

// Runs body under several orders of threads and blocks; on a device, once.
template <class Body>
void UnderOrders(const Body& body) {
#if defined(KVC_TEST_DEVICE)
  body();
#else
  for (const uint64_t seed : {0, 1, 2}) {
    emulator::Options options;
    options.seed = seed;
    options.num_threads = 2;
    emulator::SetOptions(options);
    body();
  }
  emulator::SetOptions({});
#endif
}

}  // namespace kvc::cuda
