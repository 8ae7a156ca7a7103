#include "runtime/cuda/cuda_device.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "runtime/cuda/device_memory.h"

namespace kvc::runtime {

CudaDevice::CudaDevice(int threads) : info_(cuda::OpenDevice(threads)) {}

std::unique_lock<std::recursive_mutex> CudaDevice::Lock() const {
  static std::recursive_mutex one_device;
  return std::unique_lock(one_device);
}

void CudaDevice::ToDevice(const void* host, const Buffer& to, int64_t offset, int64_t bytes) {
  const auto lock = Lock();
  cuda::CopyToDevice(DeviceMemory::Of(to) + offset, host, static_cast<size_t>(bytes), stream());
  Synchronize();
}

void CudaDevice::ToHost(const Buffer& from, int64_t offset, void* host, int64_t bytes) {
  const auto lock = Lock();
  cuda::CopyToHost(host, DeviceMemory::Of(from) + offset, static_cast<size_t>(bytes), stream());
  Synchronize();
}

// What follows in the stream sees the copy, and the host has no other way to the memory: nobody
// needs to wait.
void CudaDevice::Copy(
    const Buffer& from, int64_t from_offset, const Buffer& to, int64_t to_offset, int64_t bytes) {
  const auto lock = Lock();
  cuda::CopyOnDevice(DeviceMemory::Of(to) + to_offset, DeviceMemory::Of(from) + from_offset,
                     static_cast<size_t>(bytes), stream());
}

void CudaDevice::Synchronize() {
  const auto lock = Lock();
  ++waits_;
  if (faults_.data() != nullptr) {
    cuda::CopyToHost(&found_, faults_.data(), sizeof(found_), stream());
  }
  cuda::Synchronize(stream());
  staged_.clear();
  const int32_t found = std::exchange(found_, 0);
  if (found == 0) return;
  cuda::FillZero(faults_.data(), sizeof(found), stream());
  KVC_THROW(kNumeric, "rows in codes: expected finite numbers, got {} that are not", found);
}

int32_t* CudaDevice::faults() {
  const auto lock = Lock();
  if (faults_.data() == nullptr) {
    cuda::DeviceBuffer zero(sizeof(int32_t));
    cuda::FillZero(zero.data(), sizeof(int32_t), stream());
    faults_ = std::move(zero);
  }
  return static_cast<int32_t*>(faults_.data());
}

void CudaDevice::Drain() noexcept {
  try {
    Synchronize();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
  }
}

std::optional<int64_t> CudaDevice::FreeBytes() {
  const auto lock = Lock();
  Synchronize();
  return static_cast<int64_t>(cuda::FreeBytes());
}

void CudaDevice::Upload(std::span<const std::byte> bytes, void* to) {
  if (bytes.empty()) return;
  const auto lock = Lock();
  staged_.push_back(std::make_unique<std::byte[]>(bytes.size()));
  std::ranges::copy(bytes, staged_.back().get());
  cuda::CopyToDevice(to, staged_.back().get(), bytes.size(), stream());
}

cuda::Graph CudaDevice::Capture(const std::function<void()>& body) {
  const auto lock = Lock();
  stream_.BeginCapture();
  try {
    body();
  } catch (...) {
    try {
      (void)stream_.EndCapture();
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): the first failure is told
    }
    throw;
  }
  return stream_.EndCapture();
}

void* CudaDevice::Allocate(int64_t bytes) {
  const auto lock = Lock();
  return cuda::TakeBytes(static_cast<size_t>(bytes), stream());
}

void CudaDevice::Free(void* memory, int64_t bytes) noexcept {
  const auto lock = Lock();
  cuda::GiveBackBytes(memory, static_cast<size_t>(bytes), stream());
}

}  // namespace kvc::runtime
