#pragma once
// Timing of a measurement that is repeated.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

namespace kvc::bench {

// Returns the seconds since an earlier time.
inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds of the runs: the shortest one, the middle one, and those that a tenth of the runs were
// below and above.
struct Times {
  double best = 0.0;
  double median = 0.0;
  double p10 = 0.0;
  double p90 = 0.0;
  std::vector<double> sorted;  // of all runs
};

// `seconds`: of each run, at least one.
[[nodiscard]] inline Times TimesOf(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t last = seconds.size() - 1;
  return {seconds.front(), seconds[seconds.size() / 2], seconds[last / 10],
          seconds[last - last / 10], seconds};
}

// Repeats `body`, which measures itself and returns its seconds.
template <class Body>
[[nodiscard]] Times Repeat(int64_t repetitions, const Body& body) {
  std::vector<double> seconds;
  for (int64_t r = 0; r < repetitions; ++r) seconds.push_back(body());
  return TimesOf(std::move(seconds));
}

}  // namespace kvc::bench
