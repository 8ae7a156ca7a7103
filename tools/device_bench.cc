// kvc-bench attention and compress on a device, or on its emulator.

#include <cstdio>

#include "bench/device/device_attention.h"
#include "bench/device/device_compression.h"
#include "bench/device/launch_timer.h"
#include "core/base/error.h"
#include "core/base/sizes.h"
#include "runtime/create_backend.h"
#include "tools/bench_command.h"

namespace kvc::tools {
namespace {

// In microseconds.
Json TimesToJson(const bench::Times& times) {
  return {{"best", times.best * 1e6},
          {"median", times.median * 1e6},
          {"p10", times.p10 * 1e6},
          {"p90", times.p90 * 1e6}};
}

struct DeviceLine {
  std::string shape;
  int64_t bytes = 0;
  std::string reader;
  bench::Times times;
  double error = 0.0;

  [[nodiscard]] double Rate() const { return static_cast<double>(bytes) / times.median; }
};

// Where lines were measured.
struct Place {
  std::string device;
  std::string name;
  int64_t flushed_bytes = 0;
  double copy_rate = 0.0;
  int64_t peak_bytes = 0;
};

template <class Line>
struct DeviceResult : Place {
  std::vector<Line> shapes;
};

struct CompressLine {
  std::string shape;
  std::string launch;
  int64_t full_bytes = 0;
  int64_t read_bytes = 0;
  int64_t kept_bytes = 0;
  bench::Times times;
  bench::Times with_lists;
  double error = 0.0;

  [[nodiscard]] double Kept() const {
    return static_cast<double>(kept_bytes) / static_cast<double>(full_bytes);
  }
  [[nodiscard]] double Rate() const {
    return static_cast<double>(read_bytes + kept_bytes) / times.median;
  }
};

Json PlaceToJson(const Place& place) {
  return {{"device", place.device},
          {"device_name", place.name},
          {"emulated", place.device == "emulator"},
          {"flushed_bytes", place.flushed_bytes},
          {"copy_gb_per_second", place.copy_rate * 1e-9},
          {"peak_device_bytes", place.peak_bytes},
          {"shapes", Json::array()}};
}

Json ToJson(const DeviceResult<CompressLine>& result) {
  Json json = PlaceToJson(result);
  for (const CompressLine& line : result.shapes) {
    json["shapes"].push_back({{"shape", line.shape},
                              {"launch", line.launch},
                              {"full_bytes", line.full_bytes},
                              {"read_bytes", line.read_bytes},
                              {"kept_bytes", line.kept_bytes},
                              {"share_kept", line.Kept()},
                              {"microseconds", TimesToJson(line.times)},
                              {"microseconds_with_lists", TimesToJson(line.with_lists)},
                              {"gb_per_second", line.Rate() * 1e-9},
                              {"of_copy", line.Rate() / result.copy_rate},
                              {"largest_error", line.error}});
  }
  return json;
}

Json ToJson(const DeviceResult<DeviceLine>& result) {
  Json json = PlaceToJson(result);
  for (const DeviceLine& line : result.shapes) {
    json["shapes"].push_back({{"shape", line.shape},
                              {"bytes", line.bytes},
                              {"reader", line.reader},
                              {"microseconds", TimesToJson(line.times)},
                              {"gb_per_second", line.Rate() * 1e-9},
                              {"of_copy", line.Rate() / result.copy_rate},
                              {"largest_error", line.error}});
  }
  return json;
}

void PrintPlace(const Place& place) {
  std::printf("%s: %s; copies %.2f GB/s, %s written before each launch\n", place.device.c_str(),
              place.name.c_str(), place.copy_rate * 1e-9, FormatBytes(place.flushed_bytes).c_str());
  if (place.device == "emulator") {
    std::printf("emulated: times are the host's, and say nothing about a device\n");
  }
}

void Print(const DeviceResult<CompressLine>& result) {
  PrintPlace(result);
  std::printf("%-56s %8s %10s %10s %7s %10s %10s %10s %10s %9s %9s %10s\n", "shape", "launch",
              "full", "kept", "share", "median us", "p10", "p90", "with lists", "GB/s", "of copy",
              "error");
  for (const CompressLine& line : result.shapes) {
    std::printf("%-56s %8s %10s %10s %5.1f %% %10.1f %10.1f %10.1f %10.1f %9.2f %7.1f %% %10.2e\n",
                line.shape.c_str(), line.launch.c_str(), FormatBytes(line.full_bytes).c_str(),
                FormatBytes(line.kept_bytes).c_str(), 100.0 * line.Kept(), line.times.median * 1e6,
                line.times.p10 * 1e6, line.times.p90 * 1e6, line.with_lists.median * 1e6,
                line.Rate() * 1e-9, 100.0 * line.Rate() / result.copy_rate, line.error);
  }
}

void Print(const DeviceResult<DeviceLine>& result) {
  PrintPlace(result);
  std::printf("%-64s %10s %6s %10s %10s %10s %9s %9s %10s\n", "shape", "rows", "reader",
              "median us", "p10", "p90", "GB/s", "of copy", "error");
  for (const DeviceLine& line : result.shapes) {
    std::printf("%-64s %10s %6s %10.1f %10.1f %10.1f %9.2f %7.1f %% %10.2e\n", line.shape.c_str(),
                FormatBytes(line.bytes).c_str(), line.reader.c_str(), line.times.median * 1e6,
                line.times.p10 * 1e6, line.times.p90 * 1e6, line.Rate() * 1e-9,
                100.0 * line.Rate() / result.copy_rate, line.error);
  }
}

CompressLine MeasureCompression(const std::string& text,
                                const bench::AttentionShape& shape,
                                const AttentionBenchOptions& options,
                                bench::LaunchTimer& timer) {
  constexpr int64_t kCheckedRows = 8;
  bench::DeviceCompression compression(shape, timer);
  CompressLine line;
  line.shape = text;
  line.launch = compression.projects() ? "project" : "gather";
  line.full_bytes = compression.full_bytes();
  line.read_bytes = compression.read_bytes();
  line.kept_bytes = compression.kept_bytes();
  line.times = compression.MeasureLaunch(options.repetitions);
  line.with_lists = compression.MeasureWithLists(options.repetitions);
  line.error = compression.LargestError(kCheckedRows);
  return line;
}

DeviceLine MeasureAttention(const std::string& text,
                            const bench::AttentionShape& shape,
                            const AttentionBenchOptions& options,
                            bench::LaunchTimer& timer) {
  bench::DeviceAttention attention(shape, timer);
  DeviceLine line{text, attention.bytes(), std::string(attention.reader()), {}, 0.0};
  line.times = attention.Measure(options.repetitions);
  line.error = attention.LargestError(options.checked_heads);
  return line;
}

// Measures each shape with `measure`.
template <class Line, class Measure>
CommandResult RunOnDevice(const AttentionBenchOptions& options,
                          const CommonOptions& common,
                          const Measure& measure) {
  const int threads = CheckCommonOptions(common, DeviceUse::kBackend);
  runtime::CheckDevice(common.device);
  std::vector<bench::AttentionShape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(bench::ParseAttentionShape(text));
  if (common.dry_run) return {{{"device", common.device}, {"shapes", options.shapes}}, {}};
  bench::LaunchTimer timer(threads);
  DeviceResult<Line> result;
  result.device = common.device;
  result.name = timer.device().name;
  result.flushed_bytes = timer.flushed_bytes();
  result.copy_rate = timer.CopyRate();
  const auto progress = MakeProgress(common);
  for (size_t s = 0; s < shapes.size(); ++s) {
    result.shapes.push_back(measure(options.shapes[s], shapes[s], options, timer));
    progress->Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  result.peak_bytes = static_cast<int64_t>(cuda::PeakBytes());
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace

CommandResult RunDeviceAttentionBench(const AttentionBenchOptions& options,
                                      const CommonOptions& common) {
  return RunOnDevice<DeviceLine>(options, common, MeasureAttention);
}

CommandResult RunCompressBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(BackendDevice(common) != "cpu", kDevice,
            "--device: expected cuda or emulator for compress, got {}; use --device emulator",
            common.device);
  return RunOnDevice<CompressLine>(options, common, MeasureCompression);
}

}  // namespace kvc::tools
