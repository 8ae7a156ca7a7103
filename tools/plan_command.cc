#include "tools/plan_command.h"

#include <iostream>
#include <optional>

#include <CLI/CLI.hpp>

#include "bench/support/read_bandwidth.h"
#include "core/base/sizes.h"
#include "core/base/thread_pool.h"
#include "core/cache/profile_file.h"
#include "export/budget/policy_text.h"
#include "pipeline/capacity/capacity.h"
#include "pipeline/capacity/capacity_text.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

constexpr char kAuto[] = "auto";        // --dtype, --cache-dtype
constexpr char kMeasure[] = "measure";  // --bandwidth

// "3.35TB/s", or as many bytes a second as this machine's memory is read with.
double Bandwidth(const PlanOptions& options, int threads) {
  std::string text = options.bandwidth;
  if (text == kMeasure) {
    ThreadPool pool(threads);
    return bench::MeasureReadBandwidth(pool);
  }
  if (text.ends_with("/s")) text.resize(text.size() - 2);
  return static_cast<double>(ParseBytes(text, "--bandwidth"));
}

}  // namespace

void AddPlanOptions(CLI::App& app, PlanOptions& options) {
  app.add_option("model", options.directory,
                 "Checkpoint directory, of which config.json is enough, or a bundle")
      ->required();
  app.add_option("--context", options.context, "Tokens of a sequence: 4096, 128k; default: all");
  app.add_option("--batch", options.batch, "Sequences at once")->capture_default_str();
  app.add_option("--budget", options.budgets,
                 "As kvc-export takes it; repeatable; default: 100%, 50%, 25%, 12.5%, 6.25%")
      ->allow_extra_args(false);
  app.add_option("--policy", options.policy, "METHOD[/SCORER[/LOSS]][@TIERS] below 100%")
      ->capture_default_str();
  app.add_option("--profile", options.profile, "Profile, for policies that need one");
  app.add_option("--memory", options.memory, "Memory to fill with sequences: 80GiB");
  app.add_option("--bandwidth", options.bandwidth,
                 "Memory's bytes a second, for the speed: 3.35TB/s, or measure: this machine's");
  app.add_option("--dtype", options.dtype, "Stored weights: f32, f16, bf16 or auto")
      ->capture_default_str();
  app.add_option("--cache-dtype", options.cache_dtype, "f32, f16, bf16, int8 or auto: as --dtype")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "As kvc-export takes it")->capture_default_str();
  app.add_option("--window", options.window, "As kvc-export takes it");
  app.add_option("--reference-length", options.reference_length,
                 "Tokens at which a budget is met; default: as kvc-export takes it, 4k");
}

CommandResult RunPlan(const PlanOptions& options, const CommonOptions& common) {
  const int threads = CheckCommonOptions(common);
  capacity::StorageOptions storage;
  if (options.dtype != kAuto) storage.weights_dtype = DTypeFromShortName(options.dtype);
  if (options.cache_dtype != kAuto) storage.cache_format = RowFormatFromName(options.cache_dtype);
  capacity::CapacityRequest request;
  if (!options.context.empty()) request.context = ParseLength(options.context, "--context");
  request.batch = options.batch;
  if (!options.budgets.empty()) request.budgets = options.budgets;
  request.policy = budget::ParsePolicy(options.policy).policy;
  request.sinks = options.sinks;
  request.window = options.window;
  if (!options.reference_length.empty()) {
    request.reference_length = ParseLength(options.reference_length, "--reference-length");
  }
  if (!options.memory.empty()) request.memory = ParseBytes(options.memory, "--memory");
  std::optional<ProfileData> profile;
  if (!options.profile.empty()) request.profile = &profile.emplace(ReadProfile(options.profile));
  capacity::CapacityModel model = capacity::ReadCapacityModel(options.directory, storage);
  if (!options.bandwidth.empty()) request.bandwidth = Bandwidth(options, threads);
  const capacity::Capacity plan = capacity::PlanCapacity(std::move(model), request);
  return {ToJson(plan), [text = CapacityText(plan)] { std::cout << text; }};
}

}  // namespace kvc::tools
