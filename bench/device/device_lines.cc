#include "bench/device/device_lines.h"

#include <utility>

#include "bench/device/device_attention.h"
#include "bench/device/device_compression.h"
#include "bench/support/attention_shape.h"
#include "core/io/json.h"

namespace kvc::bench {
namespace {

constexpr int64_t kCheckedRows = 8;

// In microseconds.
Json TimesToJson(const Times& times) {
  return {{"best", times.best * 1e6},
          {"median", times.median * 1e6},
          {"p10", times.p10 * 1e6},
          {"p90", times.p90 * 1e6}};
}

Json PlaceToJson(const Place& place) {
  return {{"device", place.device},
          {"device_name", place.name},
          {"emulated", place.device == "emulator"},
          {"flushed_bytes", place.flushed_bytes},
          {"copy_gb_per_second", place.copy_rate * 1e-9},
          {"peak_device_bytes", place.peak_bytes},
          {"shapes", Json::array()}};
}

std::vector<AttentionShape> ParseShapes(const DeviceRun& run) {
  std::vector<AttentionShape> shapes;
  for (const std::string& text : run.shapes) shapes.push_back(ParseAttentionShape(text));
  return shapes;
}

// Measures each shape with `measure`.
template <class Line, class Measure>
DeviceResult<Line> MeasureAll(const DeviceRun& run, Progress& progress, const Measure& measure) {
  const std::vector<AttentionShape> shapes = ParseShapes(run);
  LaunchTimer timer(run.threads);
  DeviceResult<Line> result;
  result.device = run.device;
  result.name = timer.device().name;
  result.flushed_bytes = timer.flushed_bytes();
  result.copy_rate = timer.CopyRate();
  for (size_t s = 0; s < shapes.size(); ++s) {
    Line line = measure(shapes[s], timer);
    line.shape = run.shapes[s];
    result.shapes.push_back(std::move(line));
    progress.Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  result.peak_bytes = static_cast<int64_t>(cuda::PeakBytes());
  return result;
}

}  // namespace

void CheckShapes(const DeviceRun& run) { (void)ParseShapes(run); }

DeviceResult<AttentionLine> MeasureAttention(const DeviceRun& run,
                                             int64_t checked_heads,
                                             Progress& progress) {
  const auto measure = [&](const AttentionShape& shape, LaunchTimer& timer) {
    DeviceAttention attention(shape, timer);
    AttentionLine line;
    line.bytes = attention.bytes();
    line.reader = std::string(attention.reader());
    line.times = attention.Measure(run.repetitions);
    line.error = attention.LargestError(checked_heads);
    return line;
  };
  return MeasureAll<AttentionLine>(run, progress, measure);
}

DeviceResult<CompressLine> MeasureCompression(const DeviceRun& run, Progress& progress) {
  const auto measure = [&](const AttentionShape& shape, LaunchTimer& timer) {
    DeviceCompression compression(shape, timer);
    CompressLine line;
    line.launch = compression.projects() ? "project" : "gather";
    line.full_bytes = compression.full_bytes();
    line.read_bytes = compression.read_bytes();
    line.kept_bytes = compression.kept_bytes();
    line.times = compression.MeasureLaunch(run.repetitions);
    line.with_lists = compression.MeasureWithLists(run.repetitions);
    line.error = compression.LargestError(kCheckedRows);
    return line;
  };
  return MeasureAll<CompressLine>(run, progress, measure);
}

Json ToJson(const DeviceResult<AttentionLine>& result) {
  Json json = PlaceToJson(result);
  for (const AttentionLine& line : result.shapes) {
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

}  // namespace kvc::bench
