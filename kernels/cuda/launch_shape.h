#pragma once
// How large a launch is, and how it follows the one before. Plain C++17: kernels and the host
// include this.

#include <cstddef>

namespace kvc::cuda {

// A stream of the device (runtime.h); null is the default stream.
struct StreamTag;
using StreamHandle = StreamTag*;

// Keeps a kernel's name for the message of a failure, which comes when the stream is waited for.
// On a device only; the emulator knows which kernel failed.
void RememberLaunch(const char* kernel);

struct LaunchShape {
  const char* name;  // of the kernel, for messages
  unsigned blocks_x = 1;
  unsigned blocks_y = 1;
  unsigned threads = 32;    // of a block: whole warps
  size_t shared_bytes = 0;  // dynamic shared memory of a block
  // The launch may start before the one before it in the stream has ended (programmatic dependent
  // launch): its kernel calls WaitForPrevious before it touches what that one writes.
  bool early = false;

  LaunchShape(const char* kernel, unsigned blocks, unsigned block_threads, size_t shared = 0)
      : name(kernel), blocks_x(blocks), threads(block_threads), shared_bytes(shared) {}
};

}  // namespace kvc::cuda
