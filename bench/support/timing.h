#pragma once
// Time of the shortest of many short runs. On a machine shared with other programs, it is the only
// figure that shows what the code can do.

#include <algorithm>
#include <chrono>
#include <limits>

namespace kvc::bench {

class BestTime {
 public:
  // Runs `body` once and keeps its time when it is the shortest so far.
  template <class Body>
  void Run(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    seconds_ = std::min(seconds_, time.count());
  }
  [[nodiscard]] double seconds() const { return seconds_; }

 private:
  double seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace kvc::bench
