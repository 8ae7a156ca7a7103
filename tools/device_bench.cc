// kvc-bench attention and compress on a device, or on its emulator.

#include <cstdio>

#include "bench/device/device_lines.h"
#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/json.h"
#include "runtime/create_backend.h"
#include "tools/bench_command.h"

namespace kvc::tools {
namespace {

using bench::AttentionLine;
using bench::CompressLine;
using bench::DeviceResult;

void PrintPlace(const bench::Place& place) {
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

void Print(const DeviceResult<AttentionLine>& result) {
  PrintPlace(result);
  std::printf("%-64s %10s %6s %10s %10s %10s %9s %9s %10s\n", "shape", "rows", "reader",
              "median us", "p10", "p90", "GB/s", "of copy", "error");
  for (const AttentionLine& line : result.shapes) {
    std::printf("%-64s %10s %6s %10.1f %10.1f %10.1f %9.2f %7.1f %% %10.2e\n", line.shape.c_str(),
                FormatBytes(line.bytes).c_str(), line.reader.c_str(), line.times.median * 1e6,
                line.times.p10 * 1e6, line.times.p90 * 1e6, line.Rate() * 1e-9,
                100.0 * line.Rate() / result.copy_rate, line.error);
  }
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
    result.shapes.push_back(measure(options.shapes[s], shapes[s], timer));
    progress->Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  result.peak_bytes = static_cast<int64_t>(cuda::PeakBytes());
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace

CommandResult RunDeviceAttentionBench(const AttentionBenchOptions& options,
                                      const CommonOptions& common) {
  return RunOnDevice<AttentionLine>(
      options, common,
      [&](const std::string& text, const bench::AttentionShape& shape, bench::LaunchTimer& timer) {
        return bench::MeasureAttention(text, shape, options.repetitions, options.checked_heads,
                                       timer);
      });
}

CommandResult RunCompressBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(BackendDevice(common) != "cpu", kDevice,
            "--device: expected cuda or emulator for compress, got {}; use --device emulator",
            common.device);
  return RunOnDevice<CompressLine>(
      options, common,
      [&](const std::string& text, const bench::AttentionShape& shape, bench::LaunchTimer& timer) {
        return bench::MeasureCompression(text, shape, options.repetitions, timer);
      });
}

}  // namespace kvc::tools
