#pragma once
// Lines of kvc-bench on a device: a shape of the attention, or of what turns working blocks into
// tiers, timed and checked, and their JSON (tools/bench_command.h).

#include <cstdint>
#include <string>
#include <vector>

#include "bench/device/launch_timer.h"
#include "core/base/progress.h"
#include "core/io/json_fwd.h"

namespace kvc::bench {

// The attention's launch of one decode step.
struct AttentionLine {
  std::string shape;
  int64_t bytes = 0;
  std::string reader;
  Times times;
  double error = 0.0;  // largest

  // Returns bytes per second of the median launch.
  [[nodiscard]] double Rate() const { return static_cast<double>(bytes) / times.median; }
};

// The launch that turns a working block into tiers.
struct CompressLine {
  std::string shape;
  std::string launch;  // "gather", or "project" where tiers are narrow
  int64_t full_bytes = 0;
  int64_t read_bytes = 0;
  int64_t kept_bytes = 0;
  Times times;
  Times with_lists;    // behind the upload of what the launch reads from the host
  double error = 0.0;  // largest

  [[nodiscard]] double Kept() const {
    return static_cast<double>(kept_bytes) / static_cast<double>(full_bytes);
  }
  // Returns bytes read and written per second of the median launch.
  [[nodiscard]] double Rate() const {
    return static_cast<double>(read_bytes + kept_bytes) / times.median;
  }
};

// The place where lines were measured.
struct Place {
  std::string device;
  std::string name;
  int64_t flushed_bytes = 0;
  double copy_rate = 0.0;  // bytes per second
  int64_t peak_bytes = 0;
};
template <class Line>
struct DeviceResult : Place {
  std::vector<Line> shapes;
};

// What is measured, and where.
struct DeviceRun {
  std::string device;               // "cuda" or "emulator", which the build has
  std::vector<std::string> shapes;  // as bench/support/attention_shape.h reads them
  int64_t repetitions = 0;
  int threads = 1;  // of the host, for an emulator's blocks
};
// Checks the shapes of a run without a device. Throws kUsage.
void CheckShapes(const DeviceRun& run);
// Measure all shapes of a run, one after the other; the attention's error is that of
// `checked_heads` query heads. Throw kUsage for a shape, kDevice without the device.
[[nodiscard]] DeviceResult<AttentionLine> MeasureAttention(const DeviceRun& run,
                                                           int64_t checked_heads,
                                                           Progress& progress);
[[nodiscard]] DeviceResult<CompressLine> MeasureCompression(const DeviceRun& run,
                                                            Progress& progress);

[[nodiscard]] Json ToJson(const DeviceResult<AttentionLine>& result);
[[nodiscard]] Json ToJson(const DeviceResult<CompressLine>& result);

}  // namespace kvc::bench
