#include "bench/support/host_attention.h"

#include <chrono>
#include <utility>

#include "bench/support/attention_problem.h"
#include "bench/support/read_bandwidth.h"
#include "core/io/json.h"

namespace kvc::bench {
namespace {

// More than a usual last-level cache holds.
constexpr int64_t kColdBytes = int64_t{160} << 20;

}  // namespace

HostAttention MeasureHostAttention(std::span<const std::string> shapes,
                                   int64_t repetitions,
                                   ThreadPool& pool,
                                   Progress& progress) {
  std::vector<AttentionShape> parsed;
  for (const std::string& text : shapes) parsed.push_back(ParseAttentionShape(text));
  HostAttention result;
  result.threads = pool.num_threads();
  if (repetitions > 0) result.read_bandwidth = MeasureReadBandwidth(pool);
  for (size_t s = 0; s < parsed.size(); ++s) {
    ShapeTimes line{shapes[s], parsed[s].LayerBytes(), {}};
    if (repetitions > 0) {
      AttentionProblem problem(parsed[s], kColdBytes);
      line.times = Repeat(repetitions, [&] {
        const auto start = std::chrono::steady_clock::now();
        problem.Step(pool);
        return SecondsSince(start);
      });
    }
    result.shapes.push_back(std::move(line));
    progress.Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(parsed));
  }
  return result;
}

Json ToJson(const HostAttention& result) {
  Json json = {{"threads", result.threads}, {"shapes", Json::array()}};
  if (result.read_bandwidth) json["read_gb_per_second"] = *result.read_bandwidth * 1e-9;
  for (const ShapeTimes& shape : result.shapes) {
    Json line = {{"shape", shape.shape}, {"layer_bytes", shape.layer_bytes}};
    if (shape.times) {
      line["microseconds"] = {{"best", shape.times->best * 1e6},
                              {"median", shape.times->median * 1e6}};
      line["gb_per_second"] = shape.Rate() * 1e-9;
      line["of_read_bandwidth"] = shape.Rate() / *result.read_bandwidth;
    }
    json["shapes"].push_back(std::move(line));
  }
  return json;
}

}  // namespace kvc::bench
