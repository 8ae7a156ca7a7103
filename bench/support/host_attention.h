#pragma once
// Times of the processor's attention kernel on shapes, and their JSON (tools/bench_command.h).

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/support/repeat.h"
#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"

namespace kvc::bench {

// A shape and the times of a step on it; none if it was not measured.
struct ShapeTimes {
  std::string shape;
  int64_t layer_bytes = 0;
  std::optional<Times> times;

  // Returns bytes per second of the shortest step.
  [[nodiscard]] double Rate() const { return static_cast<double>(layer_bytes) / times->best; }
};
struct HostAttention {
  int threads = 0;
  std::optional<double> read_bandwidth;  // bytes per second of this machine's memory
  std::vector<ShapeTimes> shapes;
};

// Measures every shape (bench/support/attention_shape.h), from caches that are cold; with 0
// repetitions nothing is measured. Throws kUsage for a shape that cannot be read.
[[nodiscard]] HostAttention MeasureHostAttention(std::span<const std::string> shapes,
                                                 int64_t repetitions,
                                                 ThreadPool& pool,
                                                 Progress& progress);
[[nodiscard]] Json ToJson(const HostAttention& result);

}  // namespace kvc::bench
