#pragma once
// The one place where a backend is chosen by its device's name.

#include <memory>
#include <string>

#include "core/base/thread_pool.h"

namespace kvc::runtime {

class Backend;  // runtime/backend.h

struct RuntimeOptions {
  std::string device = "cpu";
  int threads = 0;             // of a pool of its own; 0: one for each core
  ThreadPool* pool = nullptr;  // instead of one of its own; must outlive the backend
  // Keeps activations in floats where they meet bf16 weights. Without it more than eight rows are
  // rounded to bf16 before such a product, as devices do, if the processor multiplies bf16.
  bool exact = false;
};

// Throws kDevice unless this build has a backend for the device.
void CheckDevice(const std::string& device);

// Creates the backend of a device. Throws kDevice for a device without a backend, kUsage for a
// number of threads below 0, or for `exact` on another device than the cpu.
[[nodiscard]] std::shared_ptr<Backend> CreateBackend(const RuntimeOptions& options);

}  // namespace kvc::runtime
