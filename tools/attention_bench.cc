// kvc-bench attention.

#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/support/attention_problem.h"
#include "bench/support/read_bandwidth.h"
#include "bench/support/repeat.h"
#include "core/base/sizes.h"
#include "tools/bench_command.h"

namespace kvc::tools {
namespace {

// More than a usual last-level cache holds.
constexpr int64_t kColdBytes = int64_t{160} << 20;

// A shape and the times of a step on it; none with --dry-run.
struct ShapeResult {
  std::string shape;
  int64_t layer_bytes = 0;
  std::optional<bench::Times> times;

  [[nodiscard]] double Rate() const { return static_cast<double>(layer_bytes) / times->best; }
};

struct AttentionResult {
  int threads = 0;
  double read_bandwidth = 0.0;  // bytes per second of this machine's memory
  std::vector<ShapeResult> shapes;
};

Json ToJson(const AttentionResult& result, bool dry_run) {
  Json json = {{"threads", result.threads}, {"shapes", Json::array()}};
  if (!dry_run) json["read_gb_per_second"] = result.read_bandwidth * 1e-9;
  for (const ShapeResult& shape : result.shapes) {
    Json line = {{"shape", shape.shape}, {"layer_bytes", shape.layer_bytes}};
    if (shape.times) {
      line["microseconds"] = {{"best", shape.times->best * 1e6},
                              {"median", shape.times->median * 1e6}};
      line["gb_per_second"] = shape.Rate() * 1e-9;
      line["of_read_bandwidth"] = shape.Rate() / result.read_bandwidth;
    }
    json["shapes"].push_back(std::move(line));
  }
  return json;
}

void Print(const AttentionResult& result) {
  std::printf("%d threads, memory reads %.2f GB/s\n", result.threads, result.read_bandwidth * 1e-9);
  std::printf("%-52s %12s %10s %8s %12s\n", "shape", "cache", "best us", "GB/s", "of reading");
  for (const ShapeResult& shape : result.shapes) {
    std::printf("%-52s %12s %10.1f %8.2f %10.1f %%\n", shape.shape.c_str(),
                FormatBytes(shape.layer_bytes).c_str(), shape.times->best * 1e6,
                shape.Rate() * 1e-9, 100.0 * shape.Rate() / result.read_bandwidth);
  }
}

}  // namespace

void AddAttentionBenchOptions(CLI::App& app, AttentionBenchOptions& options) {
  app.add_option(
         "--shape", options.shapes,
         "heads=32,kv=8,width=128,tokens=4k,dtype=f16 and key=WIDTH (thin keys) or "
         "latent=WIDTH (rebuilt in every step); on a device batch=8, budget=25%, skew=4 (the "
         "longest head over the mean), tiers=1/8+1/4+1; repeatable")
      ->required()
      ->take_all();
  app.add_option("--repetitions", options.repetitions, "Steps that are timed")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--checked-heads", options.checked_heads,
                 "Query heads whose error is measured, on a device")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

CommandResult RunAttentionBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  return BackendDevice(common) == "cpu" ? RunHostAttentionBench(options, common)
                                        : RunDeviceAttentionBench(options, common);
}

CommandResult RunHostAttentionBench(const AttentionBenchOptions& options,
                                    const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  std::vector<bench::AttentionShape> shapes;
  for (const std::string& text : options.shapes) shapes.push_back(bench::ParseAttentionShape(text));
  AttentionResult result;
  result.threads = pool.num_threads();
  if (!common.dry_run) result.read_bandwidth = bench::MeasureReadBandwidth(pool);
  const auto progress = MakeProgress(common);
  for (size_t s = 0; s < shapes.size(); ++s) {
    ShapeResult line{options.shapes[s], shapes[s].LayerBytes(), {}};
    if (!common.dry_run) {
      bench::AttentionProblem problem(shapes[s], kColdBytes);
      line.times = bench::Repeat(options.repetitions, [&] {
        const auto start = std::chrono::steady_clock::now();
        problem.Step(pool);
        return bench::SecondsSince(start);
      });
    }
    result.shapes.push_back(std::move(line));
    progress->Report("shapes", static_cast<int64_t>(s) + 1, std::ssize(shapes));
  }
  CommandResult finished{ToJson(result, common.dry_run), {}};
  if (!common.dry_run) finished.print = [result] { Print(result); };
  return finished;
}

}  // namespace kvc::tools
