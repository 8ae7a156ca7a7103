#pragma once
// Processor time of the process. It measures the cost of a step whatever else the machine does; the
// wall clock says little where several programs share the cores.

#include <ctime>

namespace kvc {

// The seconds of processor time that ALL threads of the process have used, from an arbitrary start:
// a difference of two calls includes the work of threads that have nothing to do with the caller.
// Safe to call from several threads.
[[nodiscard]] inline double ProcessorSeconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

}  // namespace kvc
