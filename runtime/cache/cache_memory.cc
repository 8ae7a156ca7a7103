#include "runtime/cache/cache_memory.h"

#include <new>
#include <utility>

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

CacheBuffer::CacheBuffer(int64_t bytes, CacheMeter& meter) : bytes_(bytes), meter_(&meter) {
  if (bytes == 0) return;
  data_ =
      static_cast<std::byte*>(::operator new(static_cast<size_t>(bytes), kAlignment, std::nothrow));
  KVC_CHECK(data_ != nullptr, kIo, "cache: expected {} bytes of memory, got none", bytes);
  meter.Add(bytes);
}

CacheBuffer::~CacheBuffer() { Free(); }

CacheBuffer::CacheBuffer(CacheBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      meter_(std::exchange(other.meter_, nullptr)) {}

CacheBuffer& CacheBuffer::operator=(CacheBuffer&& other) noexcept {
  if (this != &other) {
    Free();
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    meter_ = std::exchange(other.meter_, nullptr);
  }
  return *this;
}

void CacheBuffer::Free() {
  if (data_ == nullptr) return;
  ::operator delete(data_, kAlignment);
  meter_->Subtract(bytes_);
  data_ = nullptr;
}

}  // namespace kvc::runtime
