#include "tools/bench_command.h"

#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/support/bundle_speed.h"
#include "bench/support/read_bandwidth.h"
#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "eval/compare/results_json.h"
#include "export/budget/budget_plan.h"
#include "runtime/device.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

bench::SpeedPlan Resolve(const BenchOptions& options, const Manifest& manifest) {
  bench::SpeedPlan plan;
  plan.repetitions = options.repetitions;
  plan.batch = options.batch;
  if (!options.budget.empty()) {
    plan.cache =
        budget::WithBudget(manifest, ParseBudget(options.budget, "--budget"), options.budget);
  }
  plan.prompt = ParseLength(options.prompt, "--prompt");
  plan.decode = ParseLength(options.decode, "--decode");
  KVC_CHECK(plan.prompt > 0 && plan.decode > 0, kUsage,
            "--prompt and --decode: expected at least one token");
  for (const std::string& depth : options.depths) {
    plan.depths.push_back(depth == "0" ? 0 : ParseLength(depth, "--depths"));
  }
  std::sort(plan.depths.begin(), plan.depths.end());
  const int64_t context = manifest.model.context_length;
  KVC_CHECK(
      plan.LongestSequence() <= context, kUsage,
      "--prompt, --depths, --decode: expected at most the model's context of {} tokens, got {}",
      context, plan.LongestSequence());
  return plan;
}

// Returns as many token ids as the model's context holds: the text's, repeated, or random ones.
std::vector<int32_t> MakeIds(const BenchOptions& options, const Manifest& manifest, uint64_t seed) {
  const int64_t count = manifest.model.context_length;
  std::vector<int32_t> ids;
  if (options.text.empty()) {
    Rng rng(seed);
    for (int64_t i = 0; i < count; ++i) {
      ids.push_back(static_cast<int32_t>(rng.NextBelow(manifest.model.vocab_size)));
    }
    return ids;
  }
  const auto tokenizer = Tokenizer::Load(options.bundle);
  for (const std::string& document : eval::ReadAll(options.text)) {
    const auto more = tokenizer->Encode(document, SpecialTokens::kNone);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  const size_t length = ids.size();
  KVC_CHECK(length > 0, kBadInput, "--text: expected text, got no token");
  for (size_t i = 0; std::ssize(ids) < count; ++i) ids.push_back(ids[i % length]);
  return ids;
}

Json DryRun(const bench::SpeedPlan& plan, const Manifest& manifest) {
  const CacheSpec& cache = plan.cache ? *plan.cache : manifest.cache;
  Json result = {{"prompt", plan.prompt}, {"decode", plan.decode}, {"depths", Json::array()}};
  for (const int64_t depth : plan.depths) {
    const int64_t prompt = plan.PrefillAt(depth);
    const CacheBytes bytes = PredictBytes(cache, prompt);
    result["depths"].push_back({{"depth", depth},
                                {"prefill_tokens", prompt},
                                {"full_bytes", bytes.full},
                                {"logical_bytes", bytes.logical},
                                {"allocated_bytes", bytes.allocated}});
  }
  return result;
}

// Measurements of a bundle.
struct BenchResult {
  Method method = Method::kFull;
  std::string budget;
  DType weights_dtype = DType::kF32;
  RowFormat cache_format;
  int threads = 0;
  bool random_ids = false;
  std::string device;
  std::optional<int64_t> peak_device_bytes;  // none where the device is the processor
  double read_bandwidth = 0.0;               // bytes per second of this machine's memory
  bench::SpeedPlan plan;
  bench::Rates prompt;
  std::vector<bench::DepthSpeed> depths;
};

Json ToJson(const bench::Rates& rates) {
  return {{"best", rates.best},
          {"median", rates.median},
          {"mean", rates.mean},
          {"deviation", rates.deviation}};
}

Json ToJson(const bench::DepthSpeed& speed, int64_t decode) {
  Json json = {{"depth", speed.depth},
               {"prefill_tokens", speed.prefill_tokens},
               {"prefill_tokens_per_second", speed.prefill_rate},
               {"decode_tokens", decode},
               {"decode_tokens_per_second", ToJson(speed.decode)},
               {"cache", eval::CacheToJson(speed.cache)},
               {"attention_gb_per_second", nullptr}};
  if (speed.attention_bytes_per_second) {
    json["attention_gb_per_second"] = *speed.attention_bytes_per_second * 1e-9;
  }
  return json;
}

Json ToJson(const BenchResult& result) {
  Json json = {
      {"method", MethodName(result.method)},
      {"budget", result.budget},
      {"dtype", ShortName(result.weights_dtype)},
      {"cache_dtype", RowFormatName(result.cache_format)},
      {"device", result.device},
      {"batch", result.plan.batch},
      {"threads", result.threads},
      {"ids", result.random_ids ? "random" : "text"},
      {"read_gb_per_second", result.read_bandwidth * 1e-9},
      {"repetitions", result.plan.repetitions},
      {"prompt", {{"tokens", result.plan.prompt}, {"tokens_per_second", ToJson(result.prompt)}}},
      {"depths", Json::array()}};
  for (const bench::DepthSpeed& depth : result.depths) {
    json["depths"].push_back(ToJson(depth, result.plan.decode));
  }
  if (!result.depths.empty()) json["cache"] = eval::CacheToJson(result.depths.back().cache);
  if (result.peak_device_bytes) json["peak_device_bytes"] = *result.peak_device_bytes;
  return json;
}

std::string GigabytesText(const std::optional<double>& bytes_per_second) {
  if (!bytes_per_second) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", *bytes_per_second * 1e-9);
  return text;
}

// Returns a test's name as llama-bench writes it: "tg64 @ d4096"; "tg64 x8" for 8 sequences.
std::string TestName(const char* kind, int64_t tokens, int64_t depth, int64_t batch) {
  std::string name = kind + std::to_string(tokens);
  if (batch > 1) name += " x" + std::to_string(batch);
  if (depth > 0) name += " @ d" + std::to_string(depth);
  return name;
}

void PrintRates(const std::string& test, const bench::Rates& rates) {
  std::printf("%-18s %10.2f +- %8.2f %10.2f %10.2f", test.c_str(), rates.mean, rates.deviation,
              rates.best, rates.median);
}

void Print(const BenchResult& result) {
  std::printf("%s cache (%s, %s) on %s, %d threads, %s tokens; the host's memory reads %.2f GB/s\n",
              std::string(MethodName(result.method)).c_str(), result.budget.c_str(),
              std::string(RowFormatName(result.cache_format)).c_str(), result.device.c_str(),
              result.threads, result.random_ids ? "random" : "text", result.read_bandwidth * 1e-9);
  if (result.device == "emulator") {
    std::printf("emulated: times say nothing about a device\n");
  }
  std::printf("%-18s %22s %10s %10s %12s %10s %10s %15s\n", "test", "tokens/s", "best", "median",
              "prefilled/s", "cache", "peak", "attention GB/s");
  PrintRates(TestName("pp", result.plan.prompt, 0, 1), result.prompt);
  std::printf("\n");
  for (const bench::DepthSpeed& depth : result.depths) {
    PrintRates(TestName("tg", result.plan.decode, depth.depth, result.plan.batch), depth.decode);
    std::printf(" %12.1f %10s %10s %15s\n", depth.prefill_rate,
                FormatBytes(depth.cache.allocated_bytes).c_str(),
                FormatBytes(depth.cache.peak_bytes).c_str(),
                GigabytesText(depth.attention_bytes_per_second).c_str());
  }
  std::printf("peak memory of the process %s\n", FormatBytes(PeakRssBytes()).c_str());
  if (result.peak_device_bytes) {
    std::printf("peak memory of the device %s\n", FormatBytes(*result.peak_device_bytes).c_str());
  }
}

}  // namespace

void AddBenchOptions(CLI::App& app, BenchOptions& options) {
  app.add_option("bundle", options.bundle, "Bundle to measure");
  app.add_option("--prompt", options.prompt, "Tokens of the prefill that is measured by itself")
      ->capture_default_str();
  app.add_option("--decode", options.decode, "Tokens decoded at each depth")->capture_default_str();
  app.add_option("--depths", options.depths,
                 "Tokens in the cache when the last one is decoded, from a real prefill")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Sequences that decode together")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--budget", options.budget,
                 "Another budget than the bundle's: 25%, 512tok or 1GiB@128k");
  app.add_option("--text", options.text, "Text of the prompts, repeated; default: random tokens");
  app.add_option("--repetitions", options.repetitions, "Runs of each measurement")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

CommandResult RunBench(const BenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(!options.bundle.empty(), kUsage,
            "BUNDLE: expected a bundle's directory or attention, got neither");
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const Manifest manifest = ReadManifest(options.bundle);
  BenchResult result;
  result.plan = Resolve(options, manifest);
  if (common.dry_run) return {DryRun(result.plan, manifest), {}};
  const std::vector<int32_t> ids = MakeIds(options, manifest, common.seed);
  const auto session = eval::OpenSession(options.bundle, SessionOptions(common, pool));
  const auto progress = MakeProgress(common);
  const auto stages = std::ssize(result.plan.depths) + 1;
  result.method = (result.plan.cache ? *result.plan.cache : manifest.cache).method;
  result.budget = options.budget.empty() ? ToString(manifest.budget) : options.budget;
  result.weights_dtype = manifest.weights_dtype;
  result.cache_format = manifest.cache.key_format;
  result.threads = pool.num_threads();
  result.random_ids = options.text.empty();
  result.device = session->device_name();
  result.read_bandwidth = bench::MeasureReadBandwidth(pool);
  bench::BundleSpeed speed(*session, result.plan, ids);
  result.prompt = speed.Prompt();
  progress->Report("bench", 1, stages);
  for (const int64_t depth : result.plan.depths) {
    result.depths.push_back(speed.Depth(depth));
    progress->Report("bench", std::ssize(result.depths) + 1, stages);
  }
  result.peak_device_bytes = session->peak_device_bytes();
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace kvc::tools
