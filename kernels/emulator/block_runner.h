#pragma once
// Runs blocks of a grid on the calling OS thread, one after the other.

#include <functional>
#include <memory>

#include "kernels/emulator/emulator.h"

namespace kvc::emulator {

class BlockRunner {
 public:
  BlockRunner();
  ~BlockRunner();
  // Runs block `number` to its end. Throws kDevice; see RunGrid.
  void Run(const Grid& grid, int number, const std::function<void()>& kernel);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc::emulator
