#include "bench/device/device_lines.h"

#include "bench/device/device_attention.h"
#include "bench/device/device_compression.h"
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

}  // namespace

AttentionLine MeasureAttention(const std::string& text,
                               const AttentionShape& shape,
                               int64_t repetitions,
                               int64_t checked_heads,
                               LaunchTimer& timer) {
  DeviceAttention attention(shape, timer);
  AttentionLine line{text, attention.bytes(), std::string(attention.reader()), {}, 0.0};
  line.times = attention.Measure(repetitions);
  line.error = attention.LargestError(checked_heads);
  return line;
}

CompressLine MeasureCompression(const std::string& text,
                                const AttentionShape& shape,
                                int64_t repetitions,
                                LaunchTimer& timer) {
  DeviceCompression compression(shape, timer);
  CompressLine line;
  line.shape = text;
  line.launch = compression.projects() ? "project" : "gather";
  line.full_bytes = compression.full_bytes();
  line.read_bytes = compression.read_bytes();
  line.kept_bytes = compression.kept_bytes();
  line.times = compression.MeasureLaunch(repetitions);
  line.with_lists = compression.MeasureWithLists(repetitions);
  line.error = compression.LargestError(kCheckedRows);
  return line;
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
