#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/stream_emulated.h"
#include "kernels/emulator/checker.h"
#include "kernels/emulator/emulator.h"
#include "kernels/emulator/memory.h"

namespace kvc::cuda {

using Work = std::function<void()>;

struct StreamTag {
  struct Entry {
    Work work;
    bool frees = false;  // gives memory back, which happens whatever fails
  };
  std::deque<Entry> waiting;
  bool capturing = false;
  std::vector<Work> captured;
  size_t given_back = 0;  // bytes that will be free when what waits has run

  void RunFirst() {
    const Entry first = std::move(waiting.front());
    waiting.pop_front();
    first.work();
  }
  void Run() {
    try {
      while (!waiting.empty()) RunFirst();
    } catch (...) {
      std::erase_if(waiting, [](const Entry& entry) { return !entry.frees; });
      while (!waiting.empty()) RunFirst();
      throw;
    }
  }
};

namespace {

StreamTag& TagOf(StreamHandle stream) {
  static StreamTag default_stream;
  return stream == nullptr ? default_stream : *stream;
}

void Put(StreamHandle stream, Work work) {
  StreamTag& tag = TagOf(stream);
  if (tag.capturing) {
    tag.captured.push_back(std::move(work));
  } else {
    tag.waiting.push_back({std::move(work)});
  }
}

// FailCall's.
int64_t calls = 0;
int64_t failing_call = -1;

void CountCall(const char* what) {
  const int64_t number = calls++;
  KVC_CHECK(number != failing_call, kDevice, "{}: expected success, got the failure of call {}",
            what, number);
}

void CheckRange(const void* device, size_t bytes, const char* what) {
  KVC_CHECK(bytes == 0 || emulator::FindAllocation(device, bytes) != nullptr, kInternal,
            "{}: expected {} bytes of one allocation of the device, got other memory", what, bytes);
}

}  // namespace

void FailCall(int64_t number) {
  calls = 0;
  failing_call = number;
}
int64_t CountCalls() { return calls; }

void EnqueueWork(StreamHandle stream, Work work) { Put(stream, std::move(work)); }

void EnqueueKernel(const LaunchShape& shape, StreamHandle stream, Work kernel) {
  CountCall(shape.name);
  emulator::Grid grid;
  grid.name = shape.name;
  grid.blocks_x = shape.blocks_x;
  grid.blocks_y = shape.blocks_y;
  grid.threads = shape.threads;
  grid.shared_bytes = shape.shared_bytes;
  grid.early = shape.early;
  grid.stream = stream;
  Put(stream, [grid, kernel = std::move(kernel)] { emulator::RunGrid(grid, kernel); });
}

std::string_view DeviceKind() { return "emulator"; }

DeviceInfo OpenDevice(int threads) {
  emulator::Options options = emulator::GetOptions();
  options.num_threads = threads;
  emulator::SetOptions(options);
  constexpr size_t kSecondLevelBytes = size_t{1} << 20;
  return {"kvc's emulator", 4, FreeBytes(), emulator::GetMemoryUse().limit, kSecondLevelBytes};
}
size_t FreeBytes() {
  const emulator::MemoryUse use = emulator::GetMemoryUse();
  return use.limit - use.used;
}

// A device hands out what was given back before in the stream; here the stream must have come so
// far, which it need not where there is as much as ever was in use.
void* TakeBytes(size_t bytes, StreamHandle stream) {
  CountCall("device memory");
  StreamTag& tag = TagOf(stream);
  const emulator::MemoryUse use = emulator::GetMemoryUse();
  if (!tag.capturing && tag.given_back > 0 && use.used + bytes > use.peak) {
    tag.Run();
  }
  return emulator::Allocate(bytes);
}
void GiveBackBytes(void* memory, size_t bytes, StreamHandle stream) noexcept {
  StreamTag& tag = TagOf(stream);
  tag.given_back += bytes;
  const auto free = [memory, bytes, &tag] {
    emulator::Free(memory);
    tag.given_back -= bytes;
  };
  tag.waiting.push_back({free, true});  // no part of a graph, which may run more than once
}

DeviceBuffer::DeviceBuffer(size_t bytes) : bytes_(bytes) {
  CountCall("device memory");
  data_ = emulator::Allocate(bytes);
}
DeviceBuffer::~DeviceBuffer() { emulator::Free(data_); }
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

size_t UsedBytes() { return emulator::GetMemoryUse().used; }
size_t PeakBytes() { return emulator::GetMemoryUse().peak; }
void ResetPeakBytes() { emulator::ResetPeak(); }

void CopyToDevice(void* device, const void* host, size_t bytes, StreamHandle stream) {
  CountCall("CopyToDevice");
  CheckRange(device, bytes, "CopyToDevice");
  Put(stream, [=] {
    std::memcpy(device, host, bytes);
    emulator::MarkWritten(device, bytes);
  });
}
void CopyToHost(void* host, const void* device, size_t bytes, StreamHandle stream) {
  CountCall("CopyToHost");
  CheckRange(device, bytes, "CopyToHost");
  Put(stream, [=] { std::memcpy(host, device, bytes); });
}
void CopyOnDevice(void* to, const void* from, size_t bytes, StreamHandle stream) {
  CountCall("CopyOnDevice");
  CheckRange(to, bytes, "CopyOnDevice");
  CheckRange(from, bytes, "CopyOnDevice");
  Put(stream, [=] {
    std::memcpy(to, from, bytes);
    emulator::MarkWritten(to, bytes);
  });
}
void FillZero(void* device, size_t bytes, StreamHandle stream) {
  CountCall("FillZero");
  CheckRange(device, bytes, "FillZero");
  Put(stream, [=] {
    std::memset(device, 0, bytes);
    emulator::MarkWritten(device, bytes);
  });
}
void Synchronize(StreamHandle stream) {
  StreamTag& tag = TagOf(stream);
  KVC_CHECK(!tag.capturing, kInternal, "stream: expected no capture while waiting, got one");
  tag.Run();
}

bool WaitsForLaunches() { return false; }

struct Graph::Impl {
  std::vector<Work> work;
};
Graph::Graph() = default;
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;
void Graph::Replay(StreamHandle stream) const {
  KVC_CHECK(impl_ != nullptr, kInternal, "graph: expected a captured one, got none");
  for (const Work& work : impl_->work) {
    Put(stream, work);
  }
}

// A mark is a flag that its stream sets; whoever waits runs that stream until it is set.
struct Event::Impl {
  struct Mark {
    StreamTag* stream = nullptr;
    bool passed = false;
    std::chrono::steady_clock::time_point when;
  };
  std::shared_ptr<Mark> mark;
};
Event::Event() : impl_(std::make_unique<Impl>()) {}
Event::~Event() = default;
void Event::Record(StreamHandle stream) {
  auto mark = std::make_shared<Impl::Mark>();
  mark->stream = &TagOf(stream);
  impl_->mark = mark;
  Put(stream, [mark] {
    mark->passed = true;
    mark->when = std::chrono::steady_clock::now();
  });
}
void Event::MakeWait(StreamHandle stream) const {
  if (impl_->mark == nullptr) {
    return;
  }
  Put(stream, [mark = impl_->mark] {
    while (!mark->passed && !mark->stream->waiting.empty()) mark->stream->RunFirst();
  });
}

double Event::SecondsUntil(const Event& later) const {
  const auto* const first = impl_->mark.get();
  const auto* const last = later.impl_->mark.get();
  KVC_CHECK(first != nullptr && last != nullptr && first->passed && last->passed, kInternal,
            "event: expected two marks that the stream has passed, got one ahead of it");
  return std::chrono::duration<double>(last->when - first->when).count();
}

struct Stream::Impl {
  StreamTag tag;
};
Stream::Stream() : impl_(std::make_unique<Impl>()) {}
// As on a device, what is in the stream still runs; nobody is left to hear of failures.
Stream::~Stream() {
  try {
    impl_->tag.Run();
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
  }
}
StreamHandle Stream::handle() const { return &impl_->tag; }
void Stream::BeginCapture() {
  KVC_CHECK(!impl_->tag.capturing, kInternal, "stream: expected no capture, got a second one");
  impl_->tag.capturing = true;
}
Graph Stream::EndCapture() {
  KVC_CHECK(impl_->tag.capturing, kInternal, "stream: expected a capture to end, got none");
  impl_->tag.capturing = false;
  Graph graph;
  graph.impl_ = std::make_unique<Graph::Impl>();
  graph.impl_->work = std::exchange(impl_->tag.captured, {});
  return graph;
}

}  // namespace kvc::cuda
