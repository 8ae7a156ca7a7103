#include "tools/run_command.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "export/budget/budget_plan.h"
#include "runtime/generator.h"
#include "runtime/session.h"
#include "tools/results_json.h"
#include "tools/session_options.h"

namespace kvc::tools {
namespace {

std::vector<std::string> ReadPrompts(const RunOptions& options) {
  std::vector<std::string> texts = options.prompts;
  for (const std::string& text : texts) CheckUtf8(text, "--prompt");
  for (const std::string& file : options.prompt_files) {
    for (std::string& document : ReadDocuments(file)) texts.push_back(std::move(document));
  }
  KVC_CHECK(!texts.empty(), kUsage, "prompt: expected --prompt or --prompt-file, got neither");
  return texts;
}

// Returns the policy that --budget sets instead of the manifest's.
std::optional<CacheSpec> OverridePolicy(const RunOptions& options, const Manifest& manifest) {
  if (options.budget.empty()) return std::nullopt;
  const Method method = manifest.cache.method;
  KVC_CHECK(method != Method::kHeadKv && method != Method::kLuKv && method != Method::kLuKvMixed,
            kUsage,
            "--budget: expected a bundle whose method spreads rows without a profile, got {}; "
            "export the bundle again with --budget {}",
            MethodName(method), options.budget);
  budget::PlanRequest request;
  request.budget = ParseBudget(options.budget, "--budget");
  const bool everything =
      request.budget.unit == Budget::Unit::kShare && request.budget.share >= 1.0;
  request.policy.method = everything                ? Method::kFull
                          : method == Method::kFull ? Method::kUniform
                                                    : method;
  request.policy.scorer = manifest.cache.scorer;
  request.sinks = manifest.cache.sinks;
  request.window = manifest.cache.window;
  if (manifest.cache.has_narrow_tiers() && !everything) request.policy.tiers = manifest.cache.tiers;
  request.policy.basis = manifest.cache.basis;
  request.bases = manifest.cache.bases;
  request.reference_length =
      manifest.reference_length > 0 ? manifest.reference_length : manifest.model.context_length;
  return budget::MakeBudgetPlan(manifest.cache, request).spec;
}

// Returns the end-of-sequence ids of the configuration, of generation_config.json and of the
// tokenizer.
std::vector<int32_t> StopIds(const Manifest& manifest,
                             const std::filesystem::path& bundle,
                             const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = manifest.model.eos_ids;
  const std::filesystem::path file = bundle / "generation_config.json";
  if (std::filesystem::exists(file)) {
    const Json config = ReadJsonFile(file);
    const Json eos = config.value("eos_token_id", Json());
    for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
      if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
    }
  }
  if (tokenizer.eos_id()) ids.push_back(*tokenizer.eos_id());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

runtime::CacheCounters MeanCache(const std::vector<runtime::Generation>& outputs) {
  runtime::CacheCounters sum;
  for (const runtime::Generation& output : outputs) {
    sum.full_bytes += output.cache.full_bytes;
    sum.logical_bytes += output.cache.logical_bytes;
    sum.allocated_bytes += output.cache.allocated_bytes;
    sum.peak_bytes += output.cache.peak_bytes;
    sum.AddTierTokens(output.cache);
  }
  const auto count = static_cast<int64_t>(outputs.size());
  for (int64_t runtime::CacheCounters::*bytes :
       {&runtime::CacheCounters::full_bytes, &runtime::CacheCounters::logical_bytes,
        &runtime::CacheCounters::allocated_bytes, &runtime::CacheCounters::peak_bytes}) {
    sum.*bytes /= count;
  }
  return sum;
}

double Rate(int64_t tokens, double seconds) {
  return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
}

Json DryRun(const CacheSpec& spec,
            const std::vector<std::vector<int32_t>>& prompts,
            int64_t new_tokens) {
  Json plan;
  plan["method"] = MethodName(spec.method);
  plan["prompts"] = Json::array();
  for (const auto& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.size());
    const CacheBytes bytes = PredictBytes(spec, length);
    plan["prompts"].push_back({{"prompt_tokens", length},
                               {"new_tokens", new_tokens},
                               {"full_bytes", bytes.full},
                               {"logical_bytes", bytes.logical},
                               {"allocated_bytes", bytes.allocated}});
  }
  return plan;
}

// The generated texts, and the speed.
struct RunResult {
  std::vector<int64_t> prompt_tokens;  // of each output
  std::vector<std::string> texts;
  runtime::GenerateResult generated;
  runtime::CacheCounters cache;

  [[nodiscard]] double PrefillRate() const {
    return Rate(generated.prefill_tokens, generated.prefill_seconds);
  }
  [[nodiscard]] double DecodeRate() const {
    return Rate(generated.decode_tokens, generated.decode_seconds);
  }
};

Json ToJson(const RunResult& result) {
  Json json;
  json["outputs"] = Json::array();
  for (size_t i = 0; i < result.texts.size(); ++i) {
    const runtime::Generation& output = result.generated.outputs[i];
    json["outputs"].push_back({{"prompt_tokens", result.prompt_tokens[i]},
                               {"token_ids", output.ids},
                               {"text", result.texts[i]},
                               {"stopped", output.stopped}});
  }
  json["prefill_tokens_per_second"] = result.PrefillRate();
  json["decode_tokens_per_second"] = result.DecodeRate();
  json["cache"] = CacheToJson(result.cache);
  return json;
}

// Prints texts on stdout, timing and cache counters on stderr.
void Print(const RunResult& result) {
  for (size_t i = 0; i < result.texts.size(); ++i) {
    if (result.texts.size() > 1) std::cout << "=== " << i + 1 << '\n';
    std::cout << result.texts[i] << '\n';
  }
  std::fprintf(stderr, "prefill %.1f tokens/s, decode %.1f tokens/s\n", result.PrefillRate(),
               result.DecodeRate());
  const runtime::CacheCounters& cache = result.cache;
  std::fprintf(stderr, "cache: %s of %s (allocated %s, peak %s)\n",
               FormatBytes(cache.logical_bytes).c_str(), FormatBytes(cache.full_bytes).c_str(),
               FormatBytes(cache.allocated_bytes).c_str(), FormatBytes(cache.peak_bytes).c_str());
}

}  // namespace

void AddRunOptions(CLI::App& app, RunOptions& options) {
  app.add_option("bundle", options.bundle, "Bundle made by kvc-export")->required();
  app.add_option("--prompt", options.prompts, "Prompt; repeatable")->allow_extra_args(false);
  app.add_option("--prompt-file", options.prompt_files, "UTF-8 text or .jsonl; repeatable")
      ->allow_extra_args(false);
  app.add_option("-n,--new-tokens", options.new_tokens, "New tokens at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--temperature", options.sampling.temperature, "0: greedy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-k", options.sampling.top_k, "Sample from the k most probable; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-p", options.sampling.top_p, "Sample from this mass of probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--budget", options.budget, "Instead of the manifest's: 25%, 512tok, 1GiB@128k");
}

CommandResult RunPrompts(const RunOptions& options, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common, DeviceUse::kBackend));
  const std::vector<std::string> texts = ReadPrompts(options);
  const auto tokenizer = Tokenizer::Load(options.bundle);
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& text : texts) {
    prompts.push_back(tokenizer->Encode(text, SpecialTokens::kAdd));
    KVC_CHECK(!prompts.back().empty(), kBadInput, "prompt: expected text, got no token");
  }
  if (common.dry_run) {
    const Manifest manifest = ReadManifest(options.bundle);
    const auto cache = OverridePolicy(options, manifest);
    const Json plan = DryRun(cache.value_or(manifest.cache), prompts, options.new_tokens);
    return {plan, [plan] { std::cout << plan["prompts"].dump(2) << '\n'; }};
  }
  const auto bundle = runtime::Bundle::Load(options.bundle, {}, pool);
  const auto session = runtime::Session::Create(bundle, SessionOptions(common, pool));
  runtime::GenerateOptions generate;
  generate.max_new_tokens = options.new_tokens;
  generate.sampling = options.sampling;
  generate.seed = common.seed;
  generate.stop_ids = StopIds(bundle->manifest(), options.bundle, *tokenizer);
  generate.sequence.cache = OverridePolicy(options, bundle->manifest());
  RunResult result;
  result.generated = runtime::Generate(*session, prompts, generate, *MakeProgress(common));
  for (size_t i = 0; i < prompts.size(); ++i) {
    result.prompt_tokens.push_back(std::ssize(prompts[i]));
    result.texts.push_back(tokenizer->Decode(result.generated.outputs[i].ids));
  }
  result.cache = MeanCache(result.generated.outputs);
  return {ToJson(result), [result] { Print(result); }};
}

}  // namespace kvc::tools
