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

// Returns the run that the options ask for, checked without a device.
bench::DeviceRun ResolveRun(const AttentionBenchOptions& options, const CommonOptions& common) {
  const int threads = CheckCommonOptions(common, DeviceUse::kBackend);
  runtime::CheckDevice(common.device);
  bench::DeviceRun run = {common.device, options.shapes, options.repetitions, threads};
  bench::CheckShapes(run);
  return run;
}

CommandResult Plan(const bench::DeviceRun& run) {
  return {{{"device", run.device}, {"shapes", run.shapes}}, {}};
}

template <class Line>
CommandResult Finish(const DeviceResult<Line>& result) {
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace

CommandResult RunDeviceAttentionBench(const AttentionBenchOptions& options,
                                      const CommonOptions& common) {
  const bench::DeviceRun run = ResolveRun(options, common);
  if (common.dry_run) return Plan(run);
  return Finish(bench::MeasureAttention(run, options.checked_heads, *MakeProgress(common)));
}

CommandResult RunCompressBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(BackendDevice(common) != "cpu", kDevice,
            "--device: expected cuda or emulator for compress, got {}; use --device emulator",
            common.device);
  const bench::DeviceRun run = ResolveRun(options, common);
  if (common.dry_run) return Plan(run);
  return Finish(bench::MeasureCompression(run, *MakeProgress(common)));
}

}  // namespace kvc::tools
