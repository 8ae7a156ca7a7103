#include "runtime/device.h"

#include <utility>

namespace kvc::runtime {

Buffer::Buffer(int64_t bytes, Device& device, CacheMeter* meter)
    : bytes_(bytes), device_(&device), meter_(meter) {
  if (bytes == 0) return;
  memory_ = device.Allocate(bytes);
  if (meter != nullptr) meter->Add(bytes);
}

Buffer::~Buffer() { Free(); }

Buffer::Buffer(Buffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(std::exchange(other.device_, nullptr)),
      meter_(std::exchange(other.meter_, nullptr)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Free();
    memory_ = std::exchange(other.memory_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    device_ = std::exchange(other.device_, nullptr);
    meter_ = std::exchange(other.meter_, nullptr);
  }
  return *this;
}

void Buffer::Free() {
  if (memory_ == nullptr) return;
  device_->Free(memory_, bytes_);
  if (meter_ != nullptr) meter_->Subtract(bytes_);
  memory_ = nullptr;
}

}  // namespace kvc::runtime
