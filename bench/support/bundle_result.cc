#include "bench/support/bundle_result.h"

#include "bench/support/read_bandwidth.h"
#include "core/io/json.h"
#include "eval/compare/results_json.h"

namespace kvc::bench {
namespace {

Json ToJson(const Rates& rates) {
  return {{"best", rates.best},
          {"median", rates.median},
          {"mean", rates.mean},
          {"deviation", rates.deviation}};
}

Json ToJson(const DepthSpeed& speed, int64_t decode) {
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

}  // namespace

BundleResult MeasureBundle(runtime::Session& session,
                           const Manifest& manifest,
                           const SpeedPlan& plan,
                           std::span<const int32_t> ids,
                           ThreadPool& pool,
                           Progress& progress) {
  BundleResult result;
  result.plan = plan;
  const auto stages = std::ssize(plan.depths) + 1;
  result.method = (plan.cache ? *plan.cache : manifest.cache).method;
  result.weights_dtype = manifest.weights_dtype;
  result.cache_format = manifest.cache.key_format;
  result.threads = pool.num_threads();
  result.device = session.device_name();
  result.read_bandwidth = MeasureReadBandwidth(pool);
  BundleSpeed speed(session, plan, ids);
  result.prompt = speed.Prompt();
  progress.Report("bench", 1, stages);
  for (const int64_t depth : plan.depths) {
    result.depths.push_back(speed.Depth(depth));
    progress.Report("bench", std::ssize(result.depths) + 1, stages);
  }
  result.peak_device_bytes = session.peak_device_bytes();
  return result;
}

Json ToJson(const BundleResult& result) {
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
  for (const DepthSpeed& depth : result.depths) {
    json["depths"].push_back(ToJson(depth, result.plan.decode));
  }
  if (!result.depths.empty()) json["cache"] = eval::CacheToJson(result.depths.back().cache);
  if (result.peak_device_bytes) json["peak_device_bytes"] = *result.peak_device_bytes;
  return json;
}

Json PlanToJson(const SpeedPlan& plan, const Manifest& manifest) {
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

}  // namespace kvc::bench
