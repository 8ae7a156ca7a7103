#pragma once
// Weights of a model in memory of the processor's own, one after the other in large pages. A decode
// step reads all of them once: in the small pages of a mapped file it waits for their addresses.

#include <cstddef>
#include <cstdint>

#include "core/base/thread_pool.h"
#include "runtime/load/graph.h"

namespace kvc::runtime {

// Move-only. Reading what was added is thread-safe.
class WeightMemory {
 public:
  WeightMemory() = default;  // has no room
  // Room for `bytes`, each weight's rounded up to PlaceBytes. Has none where the system gives none.
  explicit WeightMemory(int64_t bytes);
  ~WeightMemory();
  WeightMemory(WeightMemory&& other) noexcept;
  WeightMemory& operator=(WeightMemory&& other) noexcept;

  // The bytes that a weight of `bytes` takes.
  static int64_t PlaceBytes(int64_t bytes);
  // Reads `bytes` from where the tensor begins in its file, and returns where they are from now on.
  // Returns null, and the weight stays in its file, where there is no room, no file, or reading
  // fails.
  const std::byte* Add(const Tensor& first, int64_t bytes, ThreadPool& pool);

 private:
  std::byte* memory_ = nullptr;
  int64_t mapped_ = 0;  // bytes
  int64_t next_ = 0;    // the first free byte
};

}  // namespace kvc::runtime
