#pragma once
// Timing of a measurement that is repeated.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

namespace kvc::bench {

// Returns the seconds since an earlier time.
inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds of the shortest run and of the middle one.
struct Times {
  double best = 0.0;
  double median = 0.0;
};

// Repeats `body`, which measures itself and returns its seconds.
template <class Body>
[[nodiscard]] Times Repeat(int64_t repetitions, const Body& body) {
  std::vector<double> seconds;
  for (int64_t r = 0; r < repetitions; ++r) seconds.push_back(body());
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

}  // namespace kvc::bench
