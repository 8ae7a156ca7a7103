// kvc-bench attention.

#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/support/host_attention.h"
#include "core/base/counted.h"
#include "core/base/sizes.h"
#include "core/io/json.h"
#include "tools/bench_command.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

void Print(const bench::HostAttention& result) {
  std::printf("%s, memory reads %.2f GB/s\n", Counted(result.threads, "thread").c_str(),
              *result.read_bandwidth * 1e-9);
  std::printf("%-52s %12s %10s %8s %12s\n", "shape", "cache", "best us", "GB/s", "of reading");
  for (const bench::ShapeTimes& shape : result.shapes) {
    std::printf("%-52s %12s %10.1f %8.2f %10.1f %%\n", shape.shape.c_str(),
                FormatBytes(shape.layer_bytes).c_str(), shape.times->best * 1e6,
                shape.Rate() * 1e-9, 100.0 * shape.Rate() / *result.read_bandwidth);
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
      ->check(AboveZero())
      ->capture_default_str();
  app.add_option("--checked-heads", options.checked_heads,
                 "Query heads whose error is measured, on a device")
      ->check(AboveZero())
      ->capture_default_str();
}

CommandResult RunAttentionBench(const AttentionBenchOptions& options, const CommonOptions& common) {
  return BackendDevice(common) == "cpu" ? RunHostAttentionBench(options, common)
                                        : RunDeviceAttentionBench(options, common);
}

CommandResult RunHostAttentionBench(const AttentionBenchOptions& options,
                                    const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  const int64_t repetitions = common.dry_run ? 0 : options.repetitions;
  const bench::HostAttention result =
      bench::MeasureHostAttention(options.shapes, repetitions, pool, *MakeProgress(common));
  CommandResult finished{ToJson(result), {}};
  if (!common.dry_run) finished.print = [result] { Print(result); };
  return finished;
}

}  // namespace kvc::tools
