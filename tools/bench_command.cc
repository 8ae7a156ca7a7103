#include "tools/bench_command.h"

#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/support/bundle_result.h"
#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "export/budget/budget_plan.h"
#include "tools/number_checks.h"
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

void Print(const bench::BundleResult& result) {
  std::printf("%s cache (%s, %s) on %s, %s, %s tokens; the host's memory reads %.2f GB/s\n",
              std::string(MethodName(result.method)).c_str(), result.budget.c_str(),
              std::string(RowFormatName(result.cache_format)).c_str(), result.device.c_str(),
              Counted(result.threads, "thread").c_str(), result.random_ids ? "random" : "text",
              result.read_bandwidth * 1e-9);
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
      ->check(AboveZero())
      ->capture_default_str();
  app.add_option("--budget", options.budget,
                 "Another budget than the bundle's: 25%, 512tok or 1GiB@128k");
  app.add_option("--text", options.text, "Text of the prompts, repeated; default: random tokens");
  app.add_option("--repetitions", options.repetitions, "Runs of each measurement")
      ->check(AboveZero())
      ->capture_default_str();
}

CommandResult RunBench(const BenchOptions& options, const CommonOptions& common) {
  KVC_CHECK(!options.bundle.empty(), kUsage,
            "BUNDLE: expected a bundle's directory or attention, got neither");
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  // Another budget is sized with the bases of tiers in bits; the session reads its own.
  const Manifest manifest =
      options.budget.empty() ? ReadManifest(options.bundle) : ReadManifestAndBases(options.bundle);
  const bench::SpeedPlan plan = Resolve(options, manifest);
  if (common.dry_run) return {bench::PlanToJson(plan, manifest), {}};
  const std::vector<int32_t> ids = MakeIds(options, manifest, common.seed);
  const auto session = eval::OpenSession(options.bundle, SessionOptions(common, pool));
  bench::BundleResult result =
      bench::MeasureBundle(*session, manifest, plan, ids, pool, *MakeProgress(common));
  result.budget = options.budget.empty() ? ToString(manifest.budget) : options.budget;
  result.random_ids = options.text.empty();
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace kvc::tools
