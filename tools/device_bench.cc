// kvc-bench attention on a device, or on its emulator.

#include <cstdio>

#include "bench/device/device_attention.h"
#include "bench/device/launch_timer.h"
#include "core/base/sizes.h"
#include "runtime/create_backend.h"
#include "tools/bench_command.h"

namespace kvc::tools {
namespace {

struct DeviceLine {
  std::string shape;
  int64_t bytes = 0;
  std::string reader;
  bench::Times times;
  double error = 0.0;

  [[nodiscard]] double Rate() const { return static_cast<double>(bytes) / times.median; }
};

struct DeviceResult {
  std::string device;
  std::string name;
  int64_t flushed_bytes = 0;
  double copy_rate = 0.0;
  int64_t peak_bytes = 0;
  std::vector<DeviceLine> shapes;
};

Json ToJson(const DeviceResult& result) {
  Json json = {{"device", result.device},
               {"device_name", result.name},
               {"emulated", result.device == "emulator"},
               {"flushed_bytes", result.flushed_bytes},
               {"copy_gb_per_second", result.copy_rate * 1e-9},
               {"peak_device_bytes", result.peak_bytes},
               {"shapes", Json::array()}};
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

void Print(const DeviceResult& result) {
  PrintDevice(result.device, result.name, result.flushed_bytes, result.copy_rate);
  std::printf("%-64s %10s %6s %10s %10s %10s %9s %9s %10s\n", "shape", "rows", "reader",
              "median us", "p10", "p90", "GB/s", "of copy", "error");
  for (const DeviceLine& line : result.shapes) {
    std::printf("%-64s %10s %6s %10.1f %10.1f %10.1f %9.2f %7.1f %% %10.2e\n", line.shape.c_str(),
                FormatBytes(line.bytes).c_str(), line.reader.c_str(), line.times.median * 1e6,
                line.times.p10 * 1e6, line.times.p90 * 1e6, line.Rate() * 1e-9,
                100.0 * line.Rate() / result.copy_rate, line.error);
  }
}

}  // namespace

Json TimesToJson(const bench::Times& times) {
  return {{"best", times.best * 1e6},
          {"median", times.median * 1e6},
          {"p10", times.p10 * 1e6},
          {"p90", times.p90 * 1e6}};
}

void PrintDevice(const std::string& device,
                 const std::string& name,
                 int64_t flushed_bytes,
                 double copy_rate) {
  std::printf("%s: %s; copies %.2f GB/s, %s written before each launch\n", device.c_str(),
              name.c_str(), copy_rate * 1e-9, FormatBytes(flushed_bytes).c_str());
  if (device == "emulator") {
    std::printf("emulated: times are the host's, and say nothing about a device\n");
  }
}

CommandResult RunDeviceAttentionBench(const AttentionBenchOptions& options,
                                      const CommonOptions& common) {
  const int threads = CheckCommonOptions(common, DeviceUse::kBackend);
  runtime::CheckDevice(common.device);
  std::vector<bench::AttentionShape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(bench::ParseAttentionShape(text));
  if (common.dry_run) return {{{"device", common.device}, {"shapes", options.shapes}}, {}};
  bench::LaunchTimer timer(threads);
  DeviceResult result;
  result.device = common.device;
  result.name = timer.device().name;
  result.flushed_bytes = timer.flushed_bytes();
  result.copy_rate = timer.CopyRate();
  const auto progress = MakeProgress(common);
  for (size_t s = 0; s < shapes.size(); ++s) {
    bench::DeviceAttention attention(shapes[s], timer);
    DeviceLine line{options.shapes[s], attention.bytes(), std::string(attention.reader()), {}, 0.0};
    line.times = attention.Measure(options.repetitions);
    line.error = attention.LargestError(options.checked_heads);
    result.shapes.push_back(std::move(line));
    progress->Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  result.peak_bytes = static_cast<int64_t>(cuda::PeakBytes());
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace kvc::tools
