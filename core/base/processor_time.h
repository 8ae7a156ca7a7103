#pragma once
// Processor time: what a step costs whatever else the machine does. The clock on the wall says
// little where several programs share the cores.

#include <ctime>

namespace kvc {

// Seconds that all threads of the process have used, from an arbitrary start.
[[nodiscard]] inline double ProcessorSeconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

}  // namespace kvc
