#pragma once
// An array of the host's memory that counts on a sequence's meter: positions and scores, which
// decisions read. Move-only; the meter must outlive it.

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/device.h"

namespace kvc::runtime {

template <class T>
class MeteredArray {
 public:
  MeteredArray() = default;
  MeteredArray(int64_t size, CacheMeter& meter)
      : values_(static_cast<size_t>(size)), meter_(&meter) {
    meter.Add(bytes());
  }
  ~MeteredArray() { Free(); }
  MeteredArray(MeteredArray&& other) noexcept
      : values_(std::exchange(other.values_, {})), meter_(std::exchange(other.meter_, nullptr)) {}
  MeteredArray& operator=(MeteredArray&& other) noexcept {
    if (this == &other) return *this;
    Free();
    values_ = std::exchange(other.values_, {});
    meter_ = std::exchange(other.meter_, nullptr);
    return *this;
  }

  // A copy that counts on `meter`.
  [[nodiscard]] MeteredArray Clone(CacheMeter& meter) const {
    if (meter_ == nullptr) return {};
    MeteredArray copy(size(), meter);
    copy.values_ = values_;
    return copy;
  }

  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(values_.size()); }
  [[nodiscard]] T* data() { return values_.data(); }
  [[nodiscard]] const T* data() const { return values_.data(); }

 private:
  void Free() {
    if (meter_ != nullptr) meter_->Subtract(bytes());
  }
  [[nodiscard]] int64_t bytes() const { return static_cast<int64_t>(values_.size() * sizeof(T)); }

  std::vector<T> values_;
  CacheMeter* meter_ = nullptr;
};

}  // namespace kvc::runtime
