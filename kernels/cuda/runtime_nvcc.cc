#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include <cuda_runtime.h>

#include "core/base/error.h"
#include "kernels/cuda/launches_nvcc.h"
#include "kernels/cuda/runtime.h"

namespace kvc::cuda {
namespace {

void Check(cudaError_t status, const char* what) {
  KVC_CHECK(status == cudaSuccess, kDevice, "{}: expected success, got {}", what,
            cudaGetErrorString(status));
}

cudaStream_t Native(StreamHandle stream) { return reinterpret_cast<cudaStream_t>(stream); }

// Bytes that kvc holds. Allocation is by one thread at a time.
size_t used_bytes = 0;
size_t peak_bytes = 0;

// Kernels that were launched since anybody waited: a device says that one failed, not which.
constexpr size_t kMostLaunchNames = 32;
thread_local std::vector<const char*> launched;

// Counts what an allocation of `bytes` gave, or says why it gave nothing.
void* Count(void* memory, size_t bytes, cudaError_t status) {
  if (status == cudaErrorMemoryAllocation) {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    KVC_THROW(kDevice, "device memory: expected {} free bytes, got {} of {}", bytes, free_bytes,
              total_bytes);
  }
  Check(status, "device memory");
  used_bytes += bytes;
  peak_bytes = std::max(peak_bytes, used_bytes);
  return memory;
}

void* AllocateBytes(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  return Count(memory, bytes, status);
}

// What was given back stays with the pool, for the next one who asks.
void KeepPool() {
  cudaMemPool_t pool = nullptr;
  Check(cudaDeviceGetDefaultMemPool(&pool, 0), "memory pool");
  uint64_t all = UINT64_MAX;
  Check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "memory pool");
}

void FreeBytes(void* memory, size_t bytes) {
  if (memory != nullptr) {
    cudaFree(memory);
    used_bytes -= bytes;
  }
}

}  // namespace

std::string_view DeviceKind() { return "cuda"; }

DeviceInfo OpenDevice(int /*threads*/) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  KVC_CHECK(status == cudaSuccess && count > 0, kDevice,
            "device: expected a CUDA device, got {}; use --device cpu",
            status == cudaSuccess ? "none" : cudaGetErrorString(status));
  Check(cudaSetDevice(0), "device");
  cudaDeviceProp properties = {};
  Check(cudaGetDeviceProperties(&properties, 0), "device");
  KVC_CHECK(properties.major >= 8, kDevice,
            "device: expected compute capability 8.0 or more, got {}.{} ({})", properties.major,
            properties.minor, properties.name);
  KeepPool();
  return {properties.name, properties.multiProcessorCount, FreeBytes(), properties.totalGlobalMem,
          static_cast<size_t>(properties.l2CacheSize)};
}
size_t FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  Check(cudaMemGetInfo(&free_bytes, &total_bytes), "device memory");
  cudaMemPool_t pool = nullptr;
  Check(cudaDeviceGetDefaultMemPool(&pool, 0), "memory pool");
  uint64_t reserved = 0;
  uint64_t used = 0;
  Check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "memory pool");
  Check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "memory pool");
  return free_bytes + static_cast<size_t>(reserved - used);
}

void* TakeBytes(size_t bytes, StreamHandle stream) {
  void* memory = nullptr;
  const cudaError_t status = cudaMallocAsync(&memory, bytes, Native(stream));
  return Count(memory, bytes, status);
}
void GiveBackBytes(void* memory, size_t bytes, StreamHandle stream) noexcept {
  cudaFreeAsync(memory, Native(stream));
  used_bytes -= bytes;
}

DeviceBuffer::DeviceBuffer(size_t bytes) : data_(AllocateBytes(bytes)), bytes_(bytes) {}
DeviceBuffer::~DeviceBuffer() { FreeBytes(data_, bytes_); }
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

size_t UsedBytes() { return used_bytes; }
size_t PeakBytes() { return peak_bytes; }
void ResetPeakBytes() { peak_bytes = used_bytes; }

void CopyToDevice(void* device, const void* host, size_t bytes, StreamHandle stream) {
  Check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, Native(stream)),
        "CopyToDevice");
}
void CopyToHost(void* host, const void* device, size_t bytes, StreamHandle stream) {
  Check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, Native(stream)), "CopyToHost");
}
void CopyOnDevice(void* to, const void* from, size_t bytes, StreamHandle stream) {
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, Native(stream)), "CopyOnDevice");
}
void FillZero(void* device, size_t bytes, StreamHandle stream) {
  Check(cudaMemsetAsync(device, 0, bytes, Native(stream)), "FillZero");
}
void RememberLaunch(const char* kernel) {
  std::vector<const char*>& names = launched;
  if (names.size() < kMostLaunchNames && std::ranges::find(names, kernel) == names.end()) {
    names.push_back(kernel);
  }
}
void WaitForLaunch(const char* kernel, StreamHandle stream) {
  if (!WaitsForLaunches()) {
    return;
  }
  const cudaError_t status = cudaStreamSynchronize(Native(stream));
  KVC_CHECK(status == cudaSuccess, kDevice, "{}: expected that it runs, got {}", kernel,
            cudaGetErrorString(status));
}
bool WaitsForLaunches() {
  static const bool waits = [] {
    const char* value = std::getenv("KVC_CUDA_WAIT");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return waits;
}
void Synchronize(StreamHandle stream) {
  const cudaError_t status = cudaStreamSynchronize(Native(stream));
  const std::vector<const char*> names = std::exchange(launched, {});
  KVC_CHECK(status == cudaSuccess, kDevice, "device: expected that {} run, got {}",
            names.empty() ? "what is in the stream" : fmt::to_string(fmt::join(names, ", ")),
            cudaGetErrorString(status));
}

struct Graph::Impl {
  cudaGraphExec_t graph = nullptr;
  ~Impl() {
    if (graph != nullptr) {
      cudaGraphExecDestroy(graph);
    }
  }
};
Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;
void Graph::Replay(StreamHandle stream) const {
  KVC_CHECK(impl_ != nullptr, kInternal, "graph: expected a captured one, got none");
  Check(cudaGraphLaunch(impl_->graph, Native(stream)), "graph");
}

struct Event::Impl {
  cudaEvent_t event = nullptr;
};
Event::Event() : impl_(std::make_unique<Impl>()) { Check(cudaEventCreate(&impl_->event), "event"); }
Event::~Event() { cudaEventDestroy(impl_->event); }
void Event::Record(StreamHandle stream) {
  Check(cudaEventRecord(impl_->event, Native(stream)), "event");
}
void Event::MakeWait(StreamHandle stream) const {
  Check(cudaStreamWaitEvent(Native(stream), impl_->event, 0), "event");
}

double Event::SecondsUntil(const Event& later) const {
  float milliseconds = 0.0F;
  const cudaError_t status = cudaEventElapsedTime(&milliseconds, impl_->event, later.impl_->event);
  KVC_CHECK(status == cudaSuccess, kInternal,
            "event: expected two marks that the stream has passed, got {}",
            cudaGetErrorString(status));
  return 1e-3 * static_cast<double>(milliseconds);
}

struct Stream::Impl {
  cudaStream_t stream = nullptr;
};
Stream::Stream() : impl_(std::make_unique<Impl>()) {
  Check(cudaStreamCreateWithFlags(&impl_->stream, cudaStreamNonBlocking), "stream");
}
Stream::~Stream() { cudaStreamDestroy(impl_->stream); }
StreamHandle Stream::handle() const { return reinterpret_cast<StreamHandle>(impl_->stream); }
void Stream::BeginCapture() {
  Check(cudaStreamBeginCapture(impl_->stream, cudaStreamCaptureModeThreadLocal), "capture");
}
Graph Stream::EndCapture() {
  cudaGraph_t captured = nullptr;
  Check(cudaStreamEndCapture(impl_->stream, &captured), "capture");
  Graph graph;
  graph.impl_ = std::make_unique<Graph::Impl>();
  const cudaError_t status = cudaGraphInstantiate(&graph.impl_->graph, captured, 0);
  cudaGraphDestroy(captured);
  Check(status, "graph");
  return graph;
}

}  // namespace kvc::cuda
