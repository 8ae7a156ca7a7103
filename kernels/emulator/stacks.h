#pragma once
// Stacks for the fibers of one OS thread: mapped once, with a guard page below each.

#include <cstddef>

namespace kvc::emulator {

class Stacks {
 public:
  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  // At least `count` stacks; those handed out before are gone.
  void Reserve(size_t count);
  // The highest address and the usable bytes of stack i. Tops of neighbours differ by more than a
  // multiple of a page, so that they do not fall on the same sets of the processor's caches.
  struct Range {
    void* top;
    size_t bytes;
  };
  [[nodiscard]] Range At(size_t i) const;

 private:
  std::byte* memory_ = nullptr;
  size_t count_ = 0;
};

}  // namespace kvc::emulator
