#pragma once
// Device memory, streams, events and graphs: one interface over CUDA's runtime and the emulator.
//
// What is put into a stream runs in its order, later; host memory that takes part must stay as it
// is until the stream has been waited for. Calls throw kDevice (no device, too little memory, a
// kernel that failed). Objects are used by one thread at a time.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// Whether this library runs on a device or emulates one: "cuda" or "emulator".
[[nodiscard]] std::string_view DeviceKind();

struct DeviceInfo {
  std::string name;  // as its maker calls it
  int multiprocessors = 0;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  size_t l2_bytes = 0;  // of the last cache before its memory; an emulator's is made up
};
// Makes the device ready. `threads` >= 1: of the host, for the emulator's blocks. Throws kDevice
// where there is no device, or its driver is too old.
[[nodiscard]] DeviceInfo OpenDevice(int threads);
// Bytes that can be allocated now, those included that were given back and are kept for reuse.
[[nodiscard]] size_t FreeBytes();

// Memory in the order of a stream: what is put into the stream between the two calls may use it.
// TakeBytes throws kDevice, need and have named; bytes > 0.
[[nodiscard]] void* TakeBytes(size_t bytes, StreamHandle stream);
void GiveBackBytes(void* memory, size_t bytes, StreamHandle stream) noexcept;

// Memory of the device in one piece, freed with the object. Its content is undefined.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  [[nodiscard]] void* data() const { return data_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Bytes of device memory that kvc holds, now and at most since ResetPeakBytes.
[[nodiscard]] size_t UsedBytes();
[[nodiscard]] size_t PeakBytes();
void ResetPeakBytes();

// Copies and fills in a stream.
void CopyToDevice(void* device, const void* host, size_t bytes, StreamHandle stream);
void CopyToHost(void* host, const void* device, size_t bytes, StreamHandle stream);
void CopyOnDevice(void* to, const void* from, size_t bytes, StreamHandle stream);
void FillZero(void* device, size_t bytes, StreamHandle stream);
// Returns when everything in the stream has run; throws what failed there. A device says that a
// launch failed, not which: the error names those since the last wait. With KVC_CUDA_WAIT=1 in the
// environment each launch is waited for, and the error names the one that failed. The emulator
// always names it.
void Synchronize(StreamHandle stream);
// Whether that is asked for, so that nothing can be captured; never of the emulator.
[[nodiscard]] bool WaitsForLaunches();

// What a stream was given between BeginCapture and EndCapture, with the arguments of that time;
// runs as a whole as often as wanted.
class Graph {
 public:
  Graph();
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  void Replay(StreamHandle stream) const;

 private:
  friend class Stream;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Event {
 public:
  Event();
  ~Event();
  Event(Event&&) = delete;
  // Marks what is in the stream so far.
  void Record(StreamHandle stream);
  // What is put into `stream` from here on waits for the mark.
  void MakeWait(StreamHandle stream) const;
  // Seconds from this mark to a later one: of the device's clock, or of the host's while it
  // emulated what lay between. Throws kInternal for marks that the stream has not passed, or that
  // were never set: wait for the stream first.
  [[nodiscard]] double SecondsUntil(const Event& later) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(Stream&&) = delete;
  [[nodiscard]] StreamHandle handle() const;
  void BeginCapture();
  [[nodiscard]] Graph EndCapture();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc::cuda
