#pragma once
// Result of kvc-bench on a bundle, measured, and its JSON (tools/bench_command.h).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/support/bundle_speed.h"
#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/cache/manifest.h"
#include "core/io/json_fwd.h"

namespace kvc::bench {

struct BundleResult {
  Method method = Method::kFull;
  std::string budget;
  DType weights_dtype = DType::kF32;
  RowFormat cache_format;
  int threads = 0;
  bool random_ids = false;
  std::string device;
  std::optional<int64_t> peak_device_bytes;  // none where the device is the processor
  double read_bandwidth = 0.0;               // bytes per second of this machine's memory
  SpeedPlan plan;
  Rates prompt;
  std::vector<DepthSpeed> depths;
};

// Measures a bundle as planned, with `ids` as BundleSpeed wants them, and the memory of this
// machine with `pool`.
[[nodiscard]] BundleResult MeasureBundle(runtime::Session& session,
                                         const Manifest& manifest,
                                         const SpeedPlan& plan,
                                         std::span<const int32_t> ids,
                                         ThreadPool& pool,
                                         Progress& progress);
[[nodiscard]] Json ToJson(const BundleResult& result);

// Returns the sizes that a plan will meet, for --dry-run.
[[nodiscard]] Json PlanToJson(const SpeedPlan& plan, const Manifest& manifest);

}  // namespace kvc::bench
